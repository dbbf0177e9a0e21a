import assert from "node:assert/strict";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { LazyError } from "../../errors.ts";
import { zstdIndexCrc } from "./layout.ts";
import { parseZstdIndex } from "./zstd-index-reader.ts";
import { ZstdIndexWriter } from "./zstd-index-writer.ts";

const MIB = 2 ** 20;
const CONTENT = Buffer.alloc(2 * MIB + 500, "some text ");
const FRAMES = [CONTENT.subarray(0, MIB), CONTENT.subarray(MIB, MIB + 7), CONTENT.subarray(MIB + 7)].map((part) => zstdCompressSync(part));
const STORED = Buffer.concat(FRAMES);

function index(): Uint8Array {
  const writer = new ZstdIndexWriter();
  let storedEnd = 0;
  for (const [at, contentEnd] of [MIB, MIB + 7, CONTENT.length].entries()) {
    const storedStart = storedEnd;
    storedEnd += FRAMES[at].length;
    writer.frame({ storedStart, storedEnd }, contentEnd);
  }
  return writer.finish(STORED.length);
}

function changed(change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(index());
  change(bytes);
  bytes.writeUInt32LE(zstdIndexCrc(bytes), bytes.length - 4);
  return bytes;
}

function refuses(bytes: Uint8Array, message: RegExp, code = "CORRUPT"): void {
  assert.throws(() => parseZstdIndex(bytes, "index"), { name: "LazyError", code, message });
}

test("what is no index, or contradicts itself, is refused", () => {
  refuses(index().subarray(0, 35), /^index: a zstd index of 35 bytes, expected 36 at least$/);
  refuses(Buffer.concat([index(), Buffer.alloc(1)]), /CRC/);
  const cases: [message: RegExp, change: (bytes: Buffer) => void, code?: string][] = [
    [/expected a zstd index$/, (bytes) => bytes.write("x")],
    [/^index: a zstd index of version 2, expected 1$/, (bytes) => bytes.writeUInt32LE(2, 8), "UNSUPPORTED"],
    [/^index: 4294967295 spans in 76 bytes, expected \d+$/, (bytes) => bytes.writeUInt32LE(0xffffffff, 12)],
    [/^index: span 0 has .* of 10 stored bytes/, (bytes) => bytes.writeUInt32LE(10, 16)],
    [/^index: span 1 has 0 bytes of content/, (bytes) => bytes.writeUInt32LE(MIB, 24)],
    [/^index: span 1 has \d{10} bytes of content/, (bytes) => bytes.writeUInt8(1, 28)],
    [/^index: the zstd index does not begin/, (bytes) => bytes.writeUInt8(1, 32)],
    [/^index: span 1 has/, (bytes) => bytes.writeUInt32LE(1, 60)],
  ];
  for (const [message, change, code] of cases) refuses(changed(change), message, code);
});

test("stored bytes that are not the span's are refused", () => {
  const spans = parseZstdIndex(index(), "index");
  assert.equal(spans.spanCount, 2);
  const { start, end } = spans.storedRange(1);
  const stored = STORED.subarray(start, end);
  assert.ok(CONTENT.subarray(MIB).equals(spans.decode(1, stored)));
  const wrong = [
    stored.subarray(0, -1),
    Buffer.concat([stored, stored]),
    FRAMES[1],
    FRAMES[0],
    Buffer.alloc(0),
    Buffer.concat([FRAMES[1], FRAMES[0], FRAMES[2]]),
    Buffer.concat([stored, Buffer.from("x")]),
  ];
  for (const bytes of wrong) assert.throws(() => spans.decode(1, bytes), { name: "LazyError", code: "CORRUPT", message: /^index: span 1/ });
});

test("no bytes do more than be refused", () => {
  const flips = fc.array(fc.tuple(fc.nat(75), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(flips, fc.nat(76), (all, length) => {
      const bytes = changed((copy) => all.forEach(([at, mask]) => (copy[at] ^= mask)));
      try {
        const spans = parseZstdIndex(length > 70 ? bytes : bytes.subarray(0, length), "index");
        for (let span = 0; span < spans.spanCount; span++) {
          const { start, end } = spans.storedRange(span);
          spans.decode(span, STORED.subarray(start, end));
        }
      } catch (error) {
        assert.ok(error instanceof LazyError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
