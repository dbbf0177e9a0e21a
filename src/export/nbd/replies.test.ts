import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Extent } from "./nbd-export.ts";
import { chunkHeader, CHUNKS, extentRecord } from "./protocol.ts";
import { encodeExtents } from "./replies.ts";

/** A device of stretches in this order; the last goes on for ever. */
function deviceOf(stretches: readonly Extent[]): (offset: number, length: number) => Extent[] {
  return (offset, length) => {
    const found: Extent[] = [];
    const end = offset + length;
    let start = 0;
    for (const [index, { bytes, isHole }] of stretches.entries()) {
      const stop = index === stretches.length - 1 ? Infinity : start + bytes;
      const [from, to] = [Math.max(start, offset), Math.min(stop, end)];
      if (from < to) found.push({ bytes: to - from, isHole });
      start = stop;
    }
    return found;
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
  const extentsOf = deviceOf([
    { bytes: 10, isHole: true },
    { bytes: 20, isHole: false },
    { bytes: 30, isHole: false },
    { bytes: 1, isHole: true },
  ]);
  assert.deepEqual(extentsIn(encodeExtents(1n, 5, 100, false, extentsOf)), [
    { bytes: 5, isHole: true },
    { bytes: 50, isHole: false },
    { bytes: 45, isHole: true },
  ]);
  assert.deepEqual(extentsIn(encodeExtents(1n, 10, 100, true, extentsOf)), [{ bytes: 50, isHole: false }]);
});

test("asked again and again, a client learns every byte of a device of thousands of stretches", () => {
  const stretch = fc.record({
    bytes: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 2 ** 14 })),
    isHole: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(stretch, { minLength: 1, maxLength: 3000, size: "max" }), fc.nat(50), (stretches, start) => {
      const extentsOf = deviceOf(stretches);
      const end = Math.max(
        start + 1,
        stretches.reduce((sum, { bytes }) => sum + bytes, 60),
      );
      for (let at = start; at < end;) {
        const extents = extentsIn(encodeExtents(1n, at, end - at, false, extentsOf));
        assert.ok(extents.length > 0 && extents.length <= 1024);
        for (const { bytes, isHole } of extents) {
          assert.ok(extentsOf(at, bytes).every((each) => each.isHole === isHole));
          at += bytes;
        }
        assert.ok(at <= end);
      }
    }),
    { numRuns: 5 },
  );
});
