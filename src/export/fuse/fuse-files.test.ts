import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../../errors.ts";
import { answerRequest, encodeReply, type Answer, type FuseFile } from "./fuse-files.ts";
import {
  attribute,
  attributeOut,
  directoryEntry,
  entryOut,
  ERRNO,
  FALLOCATE_MODES,
  fallocateIn,
  FATTR_SIZE,
  inHeader,
  INIT_FLAGS,
  initIn,
  initOut,
  MAX_READ_BYTES,
  MAX_WRITE_BYTES,
  OPCODES,
  openOut,
  outHeader,
  readIn,
  setAttributesIn,
  statfsOut,
  writeIn,
  writeOut,
} from "./protocol.ts";

const FILES: FuseFile[] = [
  { name: "disk", size: 10_000, live: false, writable: false },
  { name: "stats", size: 0, live: true, writable: false },
  { name: "upper", size: 10_000, live: false, writable: true },
];

function request(opcode: number, node: number, body: Uint8Array = new Uint8Array(0), unique = 8): Uint8Array {
  return Buffer.concat([inHeader.encode({ length: inHeader.size + body.length, opcode, unique, node }), body]);
}

function answer(opcode: number, node: number, body?: Uint8Array): Answer {
  return answerRequest(FILES, request(opcode, node, body));
}

/** The body of a reply, after a look at its header. */
function bodyOf(reply: Answer): Uint8Array {
  assert.ok(reply.kind !== "none" && reply.kind !== "read" && reply.kind !== "change");
  const { length, error, unique } = outHeader.decode(reply.bytes);
  assert.deepEqual([length, error, unique], [reply.bytes.length, 0, 8]);
  return reply.bytes.subarray(outHeader.size);
}

function errnoOf(reply: Answer): number {
  assert.equal(reply.kind, "reply");
  assert.equal(reply.bytes.length, outHeader.size);
  return -(outHeader.decode(reply.bytes).error | 0);
}

test("structures have the sizes that the kernel's header states", () => {
  const sizes = [
    inHeader,
    outHeader,
    initOut,
    attribute,
    attributeOut,
    entryOut,
    openOut,
    readIn,
    statfsOut,
    directoryEntry,
    writeIn,
    writeOut,
    fallocateIn,
    setAttributesIn,
  ];
  assert.deepEqual(
    sizes.map(({ size }) => size),
    [40, 16, 64, 88, 104, 128, 16, 40, 80, 24, 40, 8, 32, 88],
  );
});

interface Layout {
  readonly size: number;
  readonly fields: Readonly<Record<string, readonly [offset: number, type: { readonly bytes: number }]>>;
}

test("fields of a structure lie inside of it and do not overlap", () => {
  const layouts: Layout[] = [inHeader, outHeader, initIn, initOut, attribute, entryOut, openOut, readIn, statfsOut, directoryEntry];
  for (const { size, fields } of layouts) {
    let end = 0;
    for (const [offset, { bytes }] of Object.values(fields).toSorted(([a], [b]) => a - b)) {
      assert.ok(offset >= end, `field at ${offset} begins before ${end}`);
      end = offset + bytes;
    }
    assert.ok(end <= size);
  }
});

test("INIT offers 1 MiB reads and only flags that the kernel has", () => {
  const kernel = initIn.encode({ major: 7, minor: 45, maxReadahead: 131_072, flags: INIT_FLAGS.ASYNC_READ | INIT_FLAGS.MAX_PAGES | 8 });
  const reply = initOut.decode(bodyOf(answer(OPCODES.INIT, 0, Buffer.concat([kernel, Buffer.alloc(48)]))));
  assert.equal(reply.flags, INIT_FLAGS.ASYNC_READ | INIT_FLAGS.MAX_PAGES);
  assert.deepEqual([reply.major, reply.maxPages * 4096, reply.maxReadahead], [7, MAX_READ_BYTES, 131_072]);
});

test("INIT asks a newer major version to speak ours, and refuses kernels that are too old", () => {
  const newer = initOut.decode(bodyOf(answer(OPCODES.INIT, 0, initIn.encode({ major: 8, minor: 0 }))));
  assert.equal(newer.major, 7);
  assert.equal(errnoOf(answer(OPCODES.INIT, 0, initIn.encode({ major: 7, minor: 27 }))), ERRNO.PROTO);
});

test("LOOKUP finds files by name, with their attributes", () => {
  const found = bodyOf(answer(OPCODES.LOOKUP, 1, Buffer.from("disk\0")));
  assert.equal(entryOut.decode(found).node, 2);
  const { size, mode, blocks } = attribute.decode(found, entryOut.size - attribute.size);
  assert.deepEqual([size, mode, blocks], [10_000, 0o100400, 20]);
  assert.equal(errnoOf(answer(OPCODES.LOOKUP, 1, Buffer.from("disks\0"))), ERRNO.NOENT);
  assert.equal(errnoOf(answer(OPCODES.LOOKUP, 2, Buffer.from("disk\0"))), ERRNO.NOTDIR);
});

test("GETATTR tells the directory from the files, and unknown nodes from both", () => {
  const modeOf = (node: number): number => attribute.decode(bodyOf(answer(OPCODES.GETATTR, node)), 16).mode;
  assert.deepEqual([1, 2, 3, 4].map(modeOf), [0o040500, 0o100400, 0o100400, 0o100600]);
  assert.equal(errnoOf(answer(OPCODES.GETATTR, 5)), ERRNO.NOENT);
});

test("READ is clamped to a fixed file's size, and passed on as it is for a live one", () => {
  const read = (node: number, offset: number, size: number): unknown => answer(OPCODES.READ, node, readIn.encode({ offset, size }));
  const expected = (file: number, offset: number, length: number): Answer => ({ kind: "read", read: { unique: 8, file, offset, length } });
  assert.deepEqual(read(2, 0, 4096), expected(0, 0, 4096));
  assert.deepEqual(read(2, 9000, 4096), expected(0, 9000, 1000));
  assert.deepEqual(read(2, 10_000, 1), expected(0, 10_000, 0));
  assert.deepEqual(read(2, 1e12, 1), expected(0, 1e12, 0));
  assert.deepEqual(read(3, 5, 4096), expected(1, 5, 4096));
  assert.equal(errnoOf(answer(OPCODES.READ, 1, readIn.encode({ size: 1 }))), ERRNO.ISDIR);
  assert.equal(errnoOf(answer(OPCODES.READ, 2, readIn.encode({ size: MAX_READ_BYTES + 1 }))), ERRNO.INVAL);
});

test("READDIR lists every name once, however little room each call has", () => {
  for (const room of [32, 40, 64, 4096]) {
    const names: string[] = [];
    for (let offset = 0, more = true; more;) {
      const records = Buffer.from(bodyOf(answer(OPCODES.READDIR, 1, readIn.encode({ offset, size: room }))));
      assert.ok(records.length <= room);
      more = records.length > 0;
      for (let at = 0; at < records.length;) {
        const { nameLength, nextOffset } = directoryEntry.decode(records, at);
        names.push(records.toString("latin1", at + directoryEntry.size, at + directoryEntry.size + nameLength));
        at += Math.ceil((directoryEntry.size + nameLength) / 8) * 8;
        offset = nextOffset;
      }
    }
    assert.deepEqual(names, [".", "..", "disk", "stats", "upper"], `room ${room}`);
  }
});

test("opening and releasing a file are told apart from other replies", () => {
  assert.equal(answer(OPCODES.OPEN, 2).kind, "opened");
  assert.equal(answer(OPCODES.RELEASE, 2).kind, "released");
  assert.equal(errnoOf(answer(OPCODES.OPEN, 1)), ERRNO.ISDIR);
});

test("requests without a reply get none; unknown ones are not implemented", () => {
  for (const opcode of [OPCODES.FORGET, OPCODES.BATCH_FORGET, OPCODES.INTERRUPT]) assert.equal(answer(opcode, 0).kind, "none");
  for (const opcode of [12, 25, 22, 46, 999]) assert.equal(errnoOf(answer(opcode, 2)), ERRNO.NOSYS);
});

test("an error reply carries the negated errno and nothing else", () => {
  assert.deepEqual([...encodeReply(3, undefined, 5)], [16, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0, 0, 0]);
});

test("a WRITE inside of a writable file carries its data; others are refused", () => {
  const data = Buffer.from("data to write");
  const write = (node: number, offset: number, size: number): Answer =>
    answer(OPCODES.WRITE, node, Buffer.concat([writeIn.encode({ offset, size }), data]));
  assert.deepEqual(write(4, 512, data.length), { kind: "change", file: 2, change: { kind: "write", unique: 8, offset: 512, data } });
  assert.equal(write(4, 10_000 - data.length, data.length).kind, "change");
  assert.equal(errnoOf(write(4, 10_001 - data.length, data.length)), ERRNO.NOSPC);
  assert.equal(errnoOf(write(4, 0, data.length + 1)), ERRNO.INVAL);
  assert.equal(errnoOf(write(2, 0, data.length)), ERRNO.ROFS);
  assert.equal(errnoOf(write(1, 0, data.length)), ERRNO.ISDIR);
});

test("punched holes and zero ranges are discards inside of the file; other allocations are not done", () => {
  const { KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE } = FALLOCATE_MODES;
  const allocate = (mode: number, offset: number, bytes: number): Answer =>
    answer(OPCODES.FALLOCATE, 4, fallocateIn.encode({ offset, bytes, mode }));
  const discard = (offset: number, length: number): Answer => ({
    kind: "change",
    file: 2,
    change: { kind: "discard", unique: 8, offset, length },
  });
  assert.deepEqual(allocate(KEEP_SIZE | PUNCH_HOLE, 4096, 4096), discard(4096, 4096));
  assert.deepEqual(allocate(KEEP_SIZE | PUNCH_HOLE, 8192, 4096), discard(8192, 1808));
  assert.deepEqual(allocate(KEEP_SIZE | PUNCH_HOLE, 20_000, 4096), discard(10_000, 0));
  assert.deepEqual(allocate(ZERO_RANGE, 0, 10_000), discard(0, 10_000));
  assert.equal(errnoOf(allocate(ZERO_RANGE, 0, 10_001)), ERRNO.FBIG);
  for (const mode of [0, KEEP_SIZE, PUNCH_HOLE | ZERO_RANGE, 0x08]) assert.equal(errnoOf(allocate(mode, 0, 4096)), ERRNO.OPNOTSUPP);
  assert.equal(errnoOf(answer(OPCODES.FALLOCATE, 2, fallocateIn.encode({ bytes: 1, mode: PUNCH_HOLE }))), ERRNO.NOSYS);
});

test("FSYNC of a writable file is a flush", () => {
  assert.deepEqual(answer(OPCODES.FSYNC, 4), { kind: "change", file: 2, change: { kind: "flush", unique: 8 } });
});

test("SETATTR leaves a writable file as large as it is", () => {
  const set = (node: number, size: number): Answer => answer(OPCODES.SETATTR, node, setAttributesIn.encode({ valid: FATTR_SIZE, size }));
  assert.equal(attribute.decode(bodyOf(set(4, 10_000)), 16).size, 10_000);
  assert.equal(errnoOf(set(4, 0)), ERRNO.PERM);
  assert.equal(errnoOf(set(2, 10_000)), ERRNO.ROFS);
});

test("only where something can be written the kernel may send large writes", () => {
  const largest = (files: FuseFile[]): number => {
    const reply = answerRequest(files, request(OPCODES.INIT, 0, initIn.encode({ major: 7, minor: 38 })));
    return initOut.decode(bodyOf(reply)).maxWrite;
  };
  assert.deepEqual([largest(FILES), largest(FILES.slice(0, 2))], [MAX_WRITE_BYTES, 4096]);
});

test("any bytes give an answer or are refused as corrupt", () => {
  const opcode = fc.oneof(fc.constantFrom(...Object.values(OPCODES)), fc.nat(60));
  fc.assert(
    fc.property(opcode, fc.nat(4), fc.uint8Array({ maxLength: 64 }), fc.integer({ min: -3, max: 3 }), (code, node, body, lie) => {
      const bytes = request(code, node, body);
      inHeader.encodeInto(bytes, { length: bytes.length + lie });
      try {
        const given = answerRequest(FILES, bytes);
        assert.equal(lie, 0);
        if (given.kind === "read") assert.ok(given.read.length >= 0 && given.read.length <= MAX_READ_BYTES);
      } catch (error) {
        assert.ok(error instanceof LazyError && error.code === "CORRUPT", String(error));
      }
    }),
    { numRuns: 5000 },
  );
});
