import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../../errors.ts";
import { spanDigestsCrc } from "./layout.ts";
import { encodeSpanDigests, parseSpanDigests, type SpanDigests } from "./span-digests.ts";

function digests(lengths: readonly number[]): SpanDigests {
  let contentBytes = 0;
  const spans = lengths.map((length) => {
    const contentOffset = contentBytes;
    contentBytes += length;
    return { contentOffset, sha256: new Uint8Array(createHash("sha256").update(String(length)).digest()) };
  });
  return { contentBytes, spans };
}

/** A file with bytes of one's own, and the CRC that they have. */
function changed(file: Uint8Array, change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(file);
  change(bytes);
  bytes.writeUInt32LE(spanDigestsCrc(bytes), bytes.length - 4);
  return bytes;
}

function refuses(bytes: Uint8Array, message: RegExp, code = "CORRUPT"): void {
  assert.throws(() => parseSpanDigests(bytes, "spans"), { name: "LazyError", code, message });
}

test("what was encoded is read", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 2 ** 40 }), { maxLength: 20 });
  fc.assert(
    fc.property(lengths, (all) => {
      assert.deepEqual(parseSpanDigests(encodeSpanDigests(digests(all)), "spans"), digests(all));
    }),
  );
});

test("what is no file of span digests, or contradicts itself, is refused", () => {
  const file = encodeSpanDigests(digests([5, 6, 7]));
  refuses(file.subarray(0, 27), /^spans: span digests of 27 bytes, expected 28 at least$/);
  refuses(Buffer.concat([file, Buffer.alloc(1)]), /CRC/);
  refuses(
    changed(file, (bytes) => bytes.write("x")),
    /^spans: begins with "xzspans", expected span digests$/,
  );
  refuses(
    changed(file, (bytes) => bytes.writeUInt8(1, 7)),
    /expected span digests$/,
  );
  refuses(
    changed(file, (bytes) => bytes.writeUInt32LE(2, 8)),
    /^spans: span digests of version 2, expected 1$/,
    "UNSUPPORTED",
  );
  refuses(
    changed(file, (bytes) => bytes.writeUInt32LE(0xffffffff, 12)),
    /^spans: 4294967295 span digests in 148 bytes, expected \d+$/,
  );
  refuses(
    changed(file, (bytes) => bytes.writeUInt32LE(18 - 7, 16)),
    /^spans: span 2 is \[11, 11\) of the content, expected at least a byte$/,
  );
  refuses(
    changed(file, (bytes) => bytes.writeUInt32LE(1, 24)),
    /^spans: span digests do not begin where the content does$/,
  );
  refuses(
    changed(file, (bytes) => bytes.writeUInt32LE(11, 64)),
    /^spans: span 1 is \[11, 11\)/,
  );
  refuses(
    changed(encodeSpanDigests(digests([])), (bytes) => bytes.writeUInt32LE(1, 16)),
    /do not begin where/,
  );
});

test("no bytes do more than be refused, and every flipped bit is noticed", () => {
  const file = encodeSpanDigests(digests([1, 2 ** 33, 3]));
  const flips = fc.array(fc.tuple(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(flips, fc.boolean(), fc.nat(file.length), (all, hasCrc, length) => {
      const change = (bytes: Buffer): void => all.forEach(([at, mask]) => (bytes[at] ^= mask));
      const bytes = hasCrc ? changed(file, change).subarray(0, length) : Buffer.from(file);
      if (!hasCrc) change(bytes);
      if (!hasCrc && bytes.equals(file)) return;
      try {
        const { spans } = parseSpanDigests(bytes, "spans");
        assert.ok(hasCrc && spans.length <= 3);
      } catch (error) {
        assert.ok(error instanceof LazyError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
