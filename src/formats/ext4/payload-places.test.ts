import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PayloadPlaces } from "./payload-places.ts";

test("places come out joined, without what was freed, in the order of the payload", () => {
  const file = fc.record({ blocks: fc.integer({ min: 1, max: 5 }), gap: fc.nat(2), freed: fc.boolean() });
  const freedBefore = fc.array(fc.integer({ min: 5000, max: 9000 }), { maxLength: 5 });
  fc.assert(
    fc.property(fc.array(file, { maxLength: 40 }), fc.nat(100), freedBefore, (files, turn, others) => {
      const places = new PayloadPlaces();
      const expected = new Map<number, number>();
      let payloadBlock = 0;
      let block = 1000;
      for (const block of others) places.drop({ block, blocks: 1 });
      for (const [index, { blocks, gap, freed }] of files.entries()) {
        if (index === turn) block = 10; // the device's end was reached
        block += gap;
        places.add({ block, payloadBlock, blocks });
        if (freed) places.drop({ block, blocks });
        for (let at = 0; at < blocks && !freed; at++) expected.set(payloadBlock + at, block + at);
        payloadBlock += blocks;
        block += blocks;
      }
      const found = places.take();
      const pairs = found.flatMap((place) =>
        Array.from({ length: place.blocks }, (_, at) => [place.payloadBlock + at, place.block + at] as const),
      );
      assert.deepEqual(pairs, [...expected]);
      for (const [index, place] of found.entries()) {
        const before = found[index - 1];
        const joins = before && before.block + before.blocks === place.block && before.payloadBlock + before.blocks === place.payloadBlock;
        assert.ok(!joins);
      }
      assert.deepEqual(places.take(), []);
    }),
    { verbose: 1 },
  );
});
