import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { crc32cRaw } from "../../bytes/crc32c.ts";
import { LazyError } from "../../errors.ts";
import { MAX_TRACE_RECORDS, TARGET_LAYERS, type TraceRecord } from "./layout.ts";
import { parsePrefetchFile } from "./prefetch-file.ts";
import { parseTrace } from "./trace-reader.ts";
import { encodeTrace } from "./trace-writer.ts";

const load = (name: string): Buffer => readFileSync(new URL(`../../../testdata/trace/${name}`, import.meta.url));

const CLEAN = load("clean.trace");

const RECORDS: readonly TraceRecord[] = [
  { op: "read", layer: 0, offset: 0, length: 4096 },
  { op: "read", layer: 2, offset: 1048576, length: 131072 },
  { op: "read", layer: 0, offset: 5242880, length: 512 },
  { op: "write", layer: 1, offset: 8192, length: 4096 },
  { op: "read", layer: 2, offset: 1179648, length: 131072 },
  { op: "read", layer: 255, offset: 68719476736, length: 2097152 },
  { op: "read", layer: 0, offset: 0, length: 4096 },
  { op: "read", layer: TARGET_LAYERS + 1, offset: 12345856, length: 65536 },
];

/** A trace with bytes of one's own, and the checksum that they have. */
function changed(change: (bytes: Buffer) => void, from: Uint8Array = CLEAN): Buffer {
  const bytes = Buffer.from(from);
  change(bytes);
  bytes.writeUInt32LE(crc32cRaw(0, bytes, 24), 16);
  return bytes;
}

function refuses(bytes: Uint8Array, message: RegExp, code = "CORRUPT"): void {
  assert.throws(() => parseTrace(bytes, "app.trace"), { name: "LazyError", code, message });
}

const anyRecord: fc.Arbitrary<TraceRecord> = fc.record(
  {
    op: fc.constantFrom("read", "write"),
    layer: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    offset: fc.integer({ min: 0, max: 2 ** 52 }),
    length: fc.integer({ min: 0, max: 2 ** 52 - 1 }),
  },
  { noNullPrototype: true },
);

test("a trace is read, whatever its writer left between the fields", () => {
  assert.deepEqual(parseTrace(CLEAN, "clean"), RECORDS);
  assert.deepEqual(parseTrace(load("padding.trace"), "padding"), RECORDS);
});

test("a trace is written byte for byte as other writers do, with zeros between the fields", () => {
  assert.deepEqual(Buffer.from(encodeTrace(parseTrace(load("padding.trace"), "padding"))), CLEAN);
});

test("what was encoded is read", () => {
  fc.assert(
    fc.property(fc.array(anyRecord, { maxLength: 30 }), (records) => {
      assert.deepEqual(parseTrace(encodeTrace(records), "trace"), records);
    }),
  );
});

test("what is no trace, or contradicts itself, is refused", () => {
  refuses(Buffer.from("etc"), /^app\.trace: begins with 657463, expected the magic of a trace, 2018efc2$/);
  refuses(CLEAN.subarray(0, 23), /^app\.trace: a trace of 23 bytes, expected 24 at least/);
  refuses(CLEAN.subarray(0, 215), /^app\.trace: a trace of 215 bytes, its header says 24 and 192 of records; it was cut short/);
  refuses(Buffer.concat([CLEAN, Buffer.alloc(24)]), /its header says 24 and 192/);
  refuses(
    changed((bytes) => bytes.writeUInt32LE(191, 8), CLEAN.subarray(0, 215)),
    /a trace of 215 bytes, its header says 24 and 191/,
  );
  refuses(load("padding.trace").fill(0, 25, 26), /records have the checksum [0-9a-f]{8}, the header says 823a7b80/);
  refuses(
    changed((bytes) => bytes.writeUInt8(0x58, 24 + 48)),
    /^app\.trace: record 2: operation is 0x58, expected 0x52 \(read\) or 0x57 \(write\)$/,
  );
  refuses(
    changed((bytes) => bytes.writeBigInt64LE(-1n, 24 + 16)),
    /^app\.trace: record 0: u64 at 16 is 18446744073709551615, expected less than 2\^53$/,
  );
  refuses(
    changed((bytes) => bytes.writeBigInt64LE(2n ** 53n - 1n, 24 + 16)),
    /^app\.trace: record 0: 4096 bytes at 9007199254740991 end beyond 2\^53$/,
  );
  refuses(
    changed((bytes) => bytes.writeBigInt64LE(-24n, 8)),
    /^app\.trace: header: u64 at 8/,
  );
});

test("more records than a file may have are neither written nor read", () => {
  const many = Array.from({ length: MAX_TRACE_RECORDS + 1 }, () => RECORDS[0]);
  assert.throws(() => encodeTrace(many), { code: "USAGE", message: /1048577 records, expected at most 1048576/ });
  const bytes = Buffer.alloc(24 + 24 * many.length);
  bytes.writeUInt32LE(0xc2ef1820, 0);
  refuses(bytes, /a trace of 25165872 bytes, expected at most 25165848/, "UNSUPPORTED");
});

test("no bytes do more than be refused, and every flipped bit of a record is noticed", () => {
  const flips = fc.array(fc.tuple(fc.nat(CLEAN.length - 1), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(flips, fc.boolean(), fc.nat(CLEAN.length), (all, hasChecksum, length) => {
      const change = (bytes: Buffer): void => all.forEach(([at, mask]) => (bytes[at] ^= mask));
      const bytes = hasChecksum ? changed(change).subarray(0, length) : Buffer.from(CLEAN);
      if (!hasChecksum) change(bytes);
      try {
        const file = parsePrefetchFile(bytes, "trace");
        // Without its magic it may be a list; between the fields of the header anything may be.
        const isSame = bytes.subarray(24).equals(CLEAN.subarray(24));
        assert.ok(hasChecksum || file.kind === "list" || isSame);
      } catch (error) {
        assert.ok(error instanceof LazyError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});
