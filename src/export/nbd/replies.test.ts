import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Extent } from "./nbd-export.ts";
import { chunkHeader, CHUNKS, extentRecord } from "./protocol.ts";
import { encodeExtents } from "./replies.ts";

/** A device of stretches in this order; the last goes on for ever. */
function deviceOf(stretches: readonly Extent[]): (offset: number) => Extent {
  return (offset) => {
    let start = 0;
    for (const { bytes, isHole } of stretches.slice(0, -1)) {
      if (offset < start + bytes) return { bytes: start + bytes - offset, isHole };
      start += bytes;
    }
    return { bytes: Infinity, isHole: stretches.at(-1)!.isHole };
  };
}

function extentsIn(reply: Uint8Array): Extent[] {
  const { type, length } = chunkHeader.decode(reply);
  assert.deepEqual([type, length], [CHUNKS.BLOCK_STATUS, reply.length - chunkHeader.size]);
  const records = reply.subarray(chunkHeader.size + 4);
  return Array.from({ length: records.length / extentRecord.size }, (_, i) => {
    const { bytes, flags } = extentRecord.decode(records, i * extentRecord.size);
    assert.ok(flags === 0 || flags === 3);
    return { bytes, isHole: flags === 3 };
  });
}

test("neighbours of one kind are one extent; the last ends with the range, and one is all there is if one is wanted", () => {
  const extentAt = deviceOf([
    { bytes: 10, isHole: true },
    { bytes: 20, isHole: false },
    { bytes: 30, isHole: false },
    { bytes: 1, isHole: true },
  ]);
  assert.deepEqual(extentsIn(encodeExtents(1n, 5, 100, false, extentAt)), [
    { bytes: 5, isHole: true },
    { bytes: 50, isHole: false },
    { bytes: 45, isHole: true },
  ]);
  assert.deepEqual(extentsIn(encodeExtents(1n, 10, 100, true, extentAt)), [{ bytes: 50, isHole: false }]);
});

test("asked again and again, a client learns every byte of a device of thousands of stretches", () => {
  const stretch = fc.record({ bytes: fc.integer({ min: 1, max: 9 }), isHole: fc.boolean() });
  fc.assert(
    fc.property(fc.array(stretch, { minLength: 1, maxLength: 3000, size: "max" }), fc.nat(50), (stretches, start) => {
      const extentAt = deviceOf(stretches);
      const end = stretches.reduce((sum, { bytes }) => sum + bytes, 60);
      for (let at = start; at < end;) {
        const extents = extentsIn(encodeExtents(1n, at, end - at, false, extentAt));
        assert.ok(extents.length > 0 && extents.length <= 1024);
        for (const { bytes, isHole } of extents) {
          for (let i = at; i < at + bytes; i += extentAt(i).bytes) assert.equal(extentAt(i).isHole, isHole);
          at += bytes;
        }
        assert.ok(at <= end);
      }
    }),
    { numRuns: 10 },
  );
});
