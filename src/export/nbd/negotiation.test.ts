import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { contextData, goData } from "../../../test/support/nbd-client.ts";
import { MemorySource } from "../../bytes/source.ts";
import { Negotiation, type OptionOutcome } from "./negotiation.ts";
import type { NbdExport } from "./nbd-export.ts";
import {
  ALLOCATION_CONTEXT,
  blockSizeInfo,
  exportInfo,
  exportNameReply,
  INFOS,
  MAX_NAME_BYTES,
  OPTION_REPLIES,
  optionReply,
  OPTIONS,
  TRANSMISSION_FLAGS,
} from "./protocol.ts";

const EMPTY = new Uint8Array(0);
const READ_ONLY_FLAGS =
  TRANSMISSION_FLAGS.HAS_FLAGS | TRANSMISSION_FLAGS.READ_ONLY | TRANSMISSION_FLAGS.SEND_FLUSH | TRANSMISSION_FLAGS.CAN_MULTI_CONN;
const served: NbdExport = {
  name: "disk",
  content: new MemorySource(new Uint8Array(5000), "some device"),
  extentsOf: (_, bytes) => [{ bytes, isHole: false }],
};

function replies({ replies: encoded }: OptionOutcome): { type: number; data: Buffer }[] {
  return encoded.map((bytes) => {
    const { type, length } = optionReply.decode(bytes);
    assert.equal(length, bytes.length - optionReply.size);
    return { type, data: Buffer.from(bytes.subarray(optionReply.size)) };
  });
}

function types(outcome: OptionOutcome): number[] {
  return replies(outcome).map(({ type }) => type);
}

test("EXPORT_NAME tells size and flags, with zeros behind them unless the client does without", () => {
  for (const [withoutZeros, bytes] of [
    [true, 10],
    [false, 134],
  ] as const) {
    const outcome = new Negotiation(served, withoutZeros).answer(OPTIONS.EXPORT_NAME, Buffer.from("disk"));
    const reply = Buffer.concat(outcome.replies);
    assert.deepEqual([outcome.next, reply.length], ["requests", bytes]);
    assert.deepEqual(exportNameReply.decode(reply), { size: 5000, flags: READ_ONLY_FLAGS });
  }
});

test("EXPORT_NAME with another name ends the connection, as it cannot say no", () => {
  for (const name of ["other", "x".repeat(MAX_NAME_BYTES + 1)]) {
    assert.deepEqual(new Negotiation(served, true).answer(OPTIONS.EXPORT_NAME, Buffer.from(name)), { replies: [], next: "end" });
  }
});

test("GO begins requests, INFO does not; both tell size, flags and block sizes, and name and description on request", () => {
  for (const [option, next] of [
    [OPTIONS.INFO, "options"],
    [OPTIONS.GO, "requests"],
  ] as const) {
    for (const name of ["disk", ""]) {
      const outcome = new Negotiation(served, true).answer(option, goData(name, [INFOS.NAME, INFOS.DESCRIPTION, 99]));
      const [first, sizes, ownName, description, last] = replies(outcome);
      assert.equal(outcome.next, next);
      assert.deepEqual(exportInfo.decode(first.data), { type: INFOS.EXPORT, size: 5000, flags: READ_ONLY_FLAGS });
      assert.deepEqual(blockSizeInfo.decode(sizes.data), { type: INFOS.BLOCK_SIZE, minimum: 1, preferred: 4096, maximum: 2 ** 25 });
      assert.deepEqual([ownName.data.subarray(2).toString(), description.data.subarray(2).toString()], ["disk", "some device"]);
      assert.equal(last.type, OPTION_REPLIES.ACK);
    }
  }
});

test("an unknown name is refused with the known one, and the client may try again", () => {
  const negotiation = new Negotiation(served, true);
  const refused = negotiation.answer(OPTIONS.GO, goData("other"));
  assert.deepEqual([refused.next, types(refused)], ["options", [OPTION_REPLIES.ERR_UNKNOWN]]);
  assert.match(replies(refused)[0].data.toString(), /no export "other", only "disk"/);
  assert.equal(negotiation.answer(OPTIONS.GO, goData("disk")).next, "requests");
});

test("LIST names the export, ABORT ends", () => {
  const negotiation = new Negotiation(served, true);
  const list = negotiation.answer(OPTIONS.LIST, EMPTY);
  assert.deepEqual(types(list), [OPTION_REPLIES.SERVER, OPTION_REPLIES.ACK]);
  assert.equal(replies(list)[0].data.subarray(4).toString(), "disk");
  const abort = negotiation.answer(OPTIONS.ABORT, EMPTY);
  assert.deepEqual([types(abort), abort.next], [[OPTION_REPLIES.ACK], "end"]);
});

test("only with structured replies may reads be asked to come in one piece, and contexts be chosen", () => {
  const negotiation = new Negotiation(served, true);
  const set = (): OptionOutcome => negotiation.answer(OPTIONS.SET_META_CONTEXT, contextData("disk", ["x:y", ALLOCATION_CONTEXT]));
  assert.deepEqual(types(set()), [OPTION_REPLIES.ERR_INVALID]);
  assert.deepEqual([negotiation.structured, negotiation.allocation], [false, false]);
  negotiation.answer(OPTIONS.STRUCTURED_REPLY, EMPTY);
  assert.deepEqual(types(set()), [OPTION_REPLIES.META_CONTEXT, OPTION_REPLIES.ACK]);
  assert.deepEqual([negotiation.structured, negotiation.allocation], [true, true]);
  const [info] = replies(negotiation.answer(OPTIONS.INFO, goData("")));
  assert.equal(exportInfo.decode(info.data).flags, READ_ONLY_FLAGS | TRANSMISSION_FLAGS.SEND_DF);
});

test("a choice of contexts replaces the one before, and fails for other exports; lists choose nothing", () => {
  const negotiation = new Negotiation(served, true);
  negotiation.answer(OPTIONS.STRUCTURED_REPLY, EMPTY);
  const list = (queries: string[]): number => types(negotiation.answer(OPTIONS.LIST_META_CONTEXT, contextData("", queries))).length;
  assert.deepEqual([list([]), list(["base:"]), list([ALLOCATION_CONTEXT]), list(["other:"])], [2, 2, 2, 1]);
  assert.equal(negotiation.allocation, false);
  for (const [name, queries, chosen] of [
    ["", [ALLOCATION_CONTEXT], true],
    ["", [], false],
    ["disk", [ALLOCATION_CONTEXT], true],
    ["other", [ALLOCATION_CONTEXT], false],
  ] as const) {
    negotiation.answer(OPTIONS.SET_META_CONTEXT, contextData(name, queries));
    assert.equal(negotiation.allocation, chosen, `${name} ${queries.join()}`);
  }
});

test("an export that does not know its holes has no contexts", () => {
  const negotiation = new Negotiation({ name: "", content: served.content }, true);
  negotiation.answer(OPTIONS.STRUCTURED_REPLY, EMPTY);
  assert.deepEqual(types(negotiation.answer(OPTIONS.SET_META_CONTEXT, contextData("", [ALLOCATION_CONTEXT]))), [OPTION_REPLIES.ACK]);
  assert.equal(negotiation.allocation, false);
});

test("what is unknown is unsupported, what is cut short or too long is invalid; both can be survived", () => {
  const negotiation = new Negotiation(served, true);
  const rows: [number, Uint8Array][] = [
    [OPTIONS.GO, EMPTY],
    [OPTIONS.GO, goData("disk").subarray(0, 9)],
    [OPTIONS.GO, Buffer.concat([goData("disk"), Buffer.alloc(1)])],
    [OPTIONS.INFO, Buffer.from([0xff, 0xff, 0xff, 0xff])],
    [OPTIONS.LIST, Buffer.alloc(1)],
    [OPTIONS.STRUCTURED_REPLY, Buffer.alloc(4)],
  ];
  for (const [option, data] of rows) assert.deepEqual(types(negotiation.answer(option, data)), [OPTION_REPLIES.ERR_INVALID]);
  for (const option of [0, 5, 11, 2 ** 32 - 1]) assert.deepEqual(types(negotiation.answer(option, EMPTY)), [OPTION_REPLIES.ERR_UNSUP]);
  negotiation.answer(OPTIONS.STRUCTURED_REPLY, EMPTY);
  const many = Buffer.concat([contextData("disk", []).subarray(0, 8), Buffer.from([0xff, 0xff, 0xff, 0xff])]);
  assert.deepEqual(types(negotiation.answer(OPTIONS.SET_META_CONTEXT, many)), [OPTION_REPLIES.ERR_INVALID]);
});

test("whatever an option holds, there is one answer, and its last reply says yes or no", () => {
  const option = fc.oneof(fc.constantFrom(...Object.values(OPTIONS)), fc.nat(2 ** 32 - 1));
  const valid = fc.constantFrom(goData("disk", [0, 3]), contextData("disk", ["base:"]), Buffer.from("disk"));
  const spoilt = fc.tuple(valid, fc.nat(40), fc.nat(255)).map(([data, at, value]) => {
    const bytes = Buffer.from(data);
    bytes[at % bytes.length] = value;
    return bytes.subarray(0, bytes.length - (value % 3));
  });
  const data = fc.oneof(fc.uint8Array({ maxLength: 64 }), valid, spoilt);
  fc.assert(
    fc.property(fc.array(fc.tuple(option, data), { maxLength: 6 }), (options) => {
      const negotiation = new Negotiation(served, true);
      for (const [number, bytes] of options) {
        const outcome = negotiation.answer(number, bytes);
        if (number === OPTIONS.EXPORT_NAME) continue;
        const last = types(outcome).at(-1)!;
        assert.ok(last === OPTION_REPLIES.ACK || last >= 0x8000_0000);
        assert.ok(
          types(outcome)
            .slice(0, -1)
            .every((type) => type > OPTION_REPLIES.ACK && type < 0x8000_0000),
        );
      }
    }),
    { numRuns: 2000 },
  );
});
