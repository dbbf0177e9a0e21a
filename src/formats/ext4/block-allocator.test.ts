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
