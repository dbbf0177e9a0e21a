import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { nextBit, setBits } from "./block-allocator.ts";
import { formatVolume } from "./format.ts";

const FORMAT = { uuid: Buffer.alloc(16, 1), hashSeed: Buffer.alloc(16, 2) };

test("the longest free run of a device of any size ends with the device", () => {
  for (const megabytes of [16, 127, 128, 129, 300, 1024]) {
    const { allocator } = formatVolume({ ...FORMAT, bytes: megabytes * 2 ** 20 });
    const { block, blocks } = allocator.longestFreeRun();
    assert.equal(block + blocks, megabytes * 256, `${megabytes} MB`);
    assert.equal(blocks, allocator.freeBlocks());
  }
});

test("blocks have one owner, are given front to back across groups, and come back only after the layer", () => {
  const volume = formatVolume({ ...FORMAT, bytes: 300 * 2 ** 20 });
  const { allocator } = volume;
  const { block: first, blocks: free } = allocator.longestFreeRun();
  assert.deepEqual(allocator.allocate(50_000, first), [{ block: first, blocks: 50_000 }], "one run over a group's border");
  allocator.free({ block: first + 10, blocks: 20 });
  assert.equal(allocator.freeBlocks(), free - 50_000);
  assert.deepEqual(allocator.allocate(5, first), [{ block: first + 50_000, blocks: 5 }]);
  volume.settle();
  assert.deepEqual(allocator.allocate(25, first), [
    { block: first + 10, blocks: 20 },
    { block: first + 50_005, blocks: 5 },
  ]);
  const last = 300 * 256 - 3;
  allocator.free({ block: first, blocks: 2 });
  volume.settle();
  assert.deepEqual(allocator.allocate(5, last), [
    { block: last, blocks: 3 },
    { block: first, blocks: 2 },
  ]);
});

test("blocks that are known to be free are handed out as if they had been searched", () => {
  const BYTES = 20 * 2 ** 20;
  const PAYLOAD = 1500;
  // Steps of the payload's and of the metadata's goal, and how many blocks are wanted there.
  const step = fc.record({ payload: fc.boolean(), skip: fc.oneof(fc.constant(0), fc.nat(20)), count: fc.nat(400), frees: fc.boolean() });
  fc.assert(
    fc.property(fc.array(fc.array(step, { maxLength: 20 }), { maxLength: 3 }), (layers) => {
      const volumes = [formatVolume({ ...FORMAT, bytes: BYTES }), formatVolume({ ...FORMAT, bytes: BYTES })];
      const states = volumes.map((volume, which) => {
        const { allocator, groups } = volume;
        const seen: unknown[] = [];
        for (const steps of layers) {
          const run = allocator.longestFreeRun();
          if (which === 0) allocator.beginLayer(run, PAYLOAD);
          const goals = { payload: run.block, metadata: run.block + PAYLOAD };
          for (const { payload, skip, count, frees } of steps) {
            const goal = (goals[payload ? "payload" : "metadata"] += skip);
            try {
              const runs = allocator.allocate(count, goal);
              seen.push(runs);
              if (frees) for (const own of runs) allocator.free(own);
            } catch (error) {
              seen.push(String(error));
            }
            goals[payload ? "payload" : "metadata"] += count;
          }
          volume.settle();
          seen.push(structuredClone(groups), Buffer.from(volume.blocks.get(groups[0].blockBitmap)).toString("base64"));
        }
        return seen;
      });
      assert.deepEqual(states[0], states[1]);
    }),
    { verbose: 1 },
  );
});

test("bits are set and found as in a plain array", () => {
  const range = fc.tuple(fc.nat(200), fc.nat(200), fc.boolean());
  fc.assert(
    fc.property(fc.array(range), range, (ranges, [from, length, wanted]) => {
      const bitmap = new Uint8Array(64);
      const plain = Array.from({ length: 512 }, () => false);
      for (const [start, count, set] of ranges) {
        setBits(bitmap, start, start + count, set);
        plain.fill(set, start, start + count);
      }
      const end = from + length;
      const found = plain.findIndex((bit, index) => index >= from && index < end && bit === wanted);
      assert.equal(nextBit(bitmap, from, end, wanted), found < 0 ? end : found);
    }),
  );
});
