import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SlotAllocator } from "./slot-allocator.ts";

test("nothing overlaps, what belongs together never crosses a block, and gaps are filled", () => {
  const item = fc.tuple(fc.integer({ min: 32, max: 9000 }), fc.integer({ min: 32, max: 4096 }));
  const property = fc.property(fc.array(item, { maxLength: 200 }), (items) => {
    const slots = new SlotAllocator();
    const taken: [start: number, end: number][] = [];
    for (const [bytes, wanted] of items) {
      const together = Math.min(bytes, wanted);
      const start = slots.take(bytes, together);
      assert.equal(start % 32, 0);
      assert.equal(Math.floor(start / 4096), Math.floor((start + together - 1) / 4096));
      taken.push([start, start + bytes]);
    }
    taken.sort(([a], [b]) => a - b);
    for (let at = 1; at < taken.length; at++) assert.ok(taken[at][0] >= taken[at - 1][1]);
    assert.ok(taken.every(([start, end]) => start >= 32 && end <= slots.end));
  });
  fc.assert(property, { seed: 7, numRuns: 100 });
});

test("the first of a new block leaves a gap that smaller ones fill", () => {
  const slots = new SlotAllocator();
  assert.deepEqual(
    [slots.take(3000, 3000), slots.take(3000, 3000), slots.take(64, 64), slots.take(64, 64), slots.take(2000, 64), slots.take(64, 64)],
    [32, 4096, 3040, 3104, 7104, 3168],
  );
});
