import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { BlockDevice } from "../../bytes/block-device.ts";
import { MemorySource } from "../../bytes/source.ts";
import type { NbdExport } from "./nbd-export.ts";
import { COMMAND_FLAGS, COMMANDS, ERRNO, MAX_PAYLOAD_BYTES, REQUEST_MAGIC, requestHeader } from "./protocol.ts";
import { parseRequest, type ParsedRequest } from "./requests.ts";

const SIZE = 2 ** 20;
const readOnly: NbdExport = { name: "", content: new MemorySource(new Uint8Array(SIZE)) };
const unused = async (): Promise<never> => await Promise.reject(new Error("not to be called"));
const device: BlockDevice = { name: "", size: 2 ** 40, read: unused, write: unused, discard: unused, flush: unused, close: unused };
const writable: NbdExport = { name: "", content: device };
const all = { structured: true, allocation: true };
const nothing = { structured: false, allocation: false };

interface Fields {
  readonly command: number;
  readonly offset?: number;
  readonly length?: number;
  readonly flags?: number;
}

function parse(served: NbdExport, { command, offset = 0, length = 512, flags = 0 }: Fields, agreement = all): ParsedRequest {
  return parseRequest(requestHeader.encode({ magic: REQUEST_MAGIC, flags, command, cookie: 7n, offset, length }), served, agreement);
}

function errnoOf(parsed: ParsedRequest): number | string {
  return parsed.kind === "refused" ? parsed.errno : parsed.kind;
}

test("every command is understood, with its flags", () => {
  const range = { cookie: 7n, offset: 0, length: 512 };
  const rows: [Fields, object][] = [
    [
      { command: COMMANDS.READ, flags: COMMAND_FLAGS.DF },
      { kind: "read", ...range },
    ],
    [{ command: COMMANDS.WRITE }, { kind: "write", flush: false, ...range }],
    [
      { command: COMMANDS.WRITE, flags: COMMAND_FLAGS.FUA },
      { kind: "write", flush: true, ...range },
    ],
    [
      { command: COMMANDS.TRIM, flags: COMMAND_FLAGS.FUA },
      { kind: "trim", flush: true, ...range },
    ],
    [{ command: COMMANDS.WRITE_ZEROES }, { kind: "zero", flush: false, mayDiscard: true, ...range }],
    [
      { command: COMMANDS.WRITE_ZEROES, flags: COMMAND_FLAGS.NO_HOLE },
      { kind: "zero", flush: false, mayDiscard: false, ...range },
    ],
    [
      { command: COMMANDS.WRITE_ZEROES, flags: COMMAND_FLAGS.FAST_ZERO },
      { kind: "zero", flush: false, mayDiscard: true, ...range },
    ],
    [
      { command: COMMANDS.BLOCK_STATUS, flags: COMMAND_FLAGS.REQ_ONE },
      { kind: "extents", onlyOne: true, ...range },
    ],
    [
      { command: COMMANDS.FLUSH, length: 0 },
      { kind: "flush", cookie: 7n },
    ],
  ];
  for (const [fields, request] of rows) assert.deepEqual(parse(writable, fields), { kind: "request", request });
  assert.deepEqual(parse(readOnly, { command: COMMANDS.DISC }), { kind: "disconnect" });
});

test("a read-only export is not written, trimmed or zeroed, but flushed", () => {
  for (const command of [COMMANDS.WRITE, COMMANDS.TRIM, COMMANDS.WRITE_ZEROES]) {
    assert.equal(errnoOf(parse(readOnly, { command })), ERRNO.PERM);
  }
  assert.equal(errnoOf(parse(readOnly, { command: COMMANDS.FLUSH })), "request");
});

test("ranges end where the device does, and reads are no longer than a reply may be", () => {
  const rows: [NbdExport, Fields, number | string][] = [
    [readOnly, { command: COMMANDS.READ, offset: SIZE - 3, length: 3 }, "request"],
    [readOnly, { command: COMMANDS.READ, offset: SIZE - 3, length: 4 }, ERRNO.INVAL],
    [readOnly, { command: COMMANDS.READ, offset: SIZE, length: 0 }, "request"],
    [readOnly, { command: COMMANDS.READ, offset: 2 ** 63, length: 1 }, ERRNO.INVAL],
    [writable, { command: COMMANDS.WRITE, offset: 2 ** 40, length: 512 }, ERRNO.NOSPC],
    [writable, { command: COMMANDS.WRITE_ZEROES, offset: 2 ** 40 - 512, length: 1024 }, ERRNO.NOSPC],
    [writable, { command: COMMANDS.TRIM, offset: 2 ** 40 - 512, length: 1024 }, ERRNO.INVAL],
    [writable, { command: COMMANDS.WRITE, offset: 511, length: 3 }, "request"],
    [writable, { command: COMMANDS.READ, length: MAX_PAYLOAD_BYTES }, "request"],
    [writable, { command: COMMANDS.READ, length: MAX_PAYLOAD_BYTES + 1 }, ERRNO.INVAL],
    [writable, { command: COMMANDS.TRIM, length: 2 ** 32 - 512 }, "request"],
    [writable, { command: COMMANDS.BLOCK_STATUS, length: 0 }, ERRNO.INVAL],
  ];
  for (const [served, fields, expected] of rows) assert.equal(errnoOf(parse(served, fields)), expected, JSON.stringify(fields));
});

test("what was not agreed on, unknown commands and flags of other commands are refused", () => {
  const rows: [Fields, typeof all][] = [
    [{ command: COMMANDS.BLOCK_STATUS }, nothing],
    [{ command: COMMANDS.READ, flags: COMMAND_FLAGS.DF }, nothing],
    [{ command: 5 }, all],
    [{ command: 999 }, all],
    [{ command: COMMANDS.READ, flags: COMMAND_FLAGS.NO_HOLE }, all],
    [{ command: COMMANDS.WRITE, flags: 1 << 15 }, all],
  ];
  for (const [fields, agreement] of rows) assert.equal(errnoOf(parse(writable, fields, agreement)), ERRNO.INVAL);
  const slow = COMMAND_FLAGS.FAST_ZERO | COMMAND_FLAGS.NO_HOLE;
  assert.equal(errnoOf(parse(writable, { command: COMMANDS.WRITE_ZEROES, flags: slow })), ERRNO.NOTSUP);
});

test("a refused write tells how much data to pass over; one that is too large ends the connection", () => {
  assert.deepEqual(parse(readOnly, { command: COMMANDS.WRITE, length: 1000 }), {
    kind: "refused",
    cookie: 7n,
    errno: ERRNO.PERM,
    payloadBytes: 1000,
  });
  assert.equal(parse(writable, { command: COMMANDS.WRITE, length: MAX_PAYLOAD_BYTES + 512 }).kind, "broken");
  assert.equal(parseRequest(Buffer.alloc(28), writable, all).kind, "broken");
});

test("any 28 bytes are a request inside of the device, or refused", () => {
  const word = fc.oneof(fc.nat(2 ** 16), fc.nat(2 ** 32 - 1), fc.constantFrom(0, 512, SIZE, 2 ** 32 - 1));
  const fields = fc.record({ command: fc.nat(9), offset: word, length: word, flags: fc.oneof(fc.nat(31), fc.nat(65535)) });
  fc.assert(
    fc.property(fields, fc.boolean(), fc.boolean(), (values, isWritable, agreed) => {
      const parsed = parse(isWritable ? writable : readOnly, values, agreed ? all : nothing);
      if (parsed.kind !== "request") return;
      const { request } = parsed;
      if (request.kind === "flush") return;
      assert.ok(request.offset + request.length <= (isWritable ? device.size : SIZE));
      assert.ok(request.kind === "read" || request.kind === "extents" || isWritable);
      assert.ok(request.kind !== "read" || request.length <= MAX_PAYLOAD_BYTES);
    }),
    { numRuns: 3000 },
  );
});
