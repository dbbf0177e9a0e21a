import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LivePayload } from "./live-payload.ts";

test("places are the runs that were added, joined, as far as they are payload", () => {
  const first = 1000;
  const run = fc.tuple(fc.integer({ min: 900, max: 1200 }), fc.integer({ min: 0, max: 60 }));
  const property = fc.property(fc.array(run, { maxLength: 12 }), fc.integer({ min: 0, max: 150 }), (runs, blocks) => {
    const live = new LivePayload(first, blocks);
    const expected = new Set<number>();
    for (const [block, length] of runs) {
      live.add(block, length);
      for (let at = Math.max(block, first); at < Math.min(block + length, first + blocks); at++) expected.add(at);
    }
    const places = live.places();
    const found = places.flatMap((place) => Array.from({ length: place.blocks }, (_, index) => place.block + index));
    assert.deepEqual(
      found,
      [...expected].toSorted((a, b) => a - b),
    );
    for (const [at, place] of places.entries()) {
      assert.equal(place.payloadBlock, place.block - first);
      const next = places[at + 1];
      if (next) assert.ok(next.block > place.block + place.blocks, "neighbours are one place");
    }
  });
  fc.assert(property, { seed: 7, numRuns: 200 });
});
