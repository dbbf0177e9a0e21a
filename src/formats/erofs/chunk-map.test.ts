import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeChunks, joinRuns, plainBlock, shapeChunks } from "./chunk-map.ts";

test("runs end with their file, and are joined where they follow each other in the file and on the device", () => {
  const runs = [
    { fileBlock: 0, blocks: 2, block: 10 },
    { fileBlock: 2, blocks: 2, block: 12 },
    { fileBlock: 4, blocks: 2, block: 20 },
    { fileBlock: 9, blocks: 9, block: 30 },
    { fileBlock: 18, blocks: 1, block: 39 },
  ];
  assert.deepEqual(joinRuns(runs, 10 * 4096 - 1), [
    { fileBlock: 0, blocks: 4, block: 10 },
    { fileBlock: 4, blocks: 2, block: 20 },
    { fileBlock: 9, blocks: 1, block: 30 },
  ]);
});

test("only a file that is one piece from beginning to end is plain", () => {
  assert.equal(plainBlock([], 0), 0);
  assert.equal(plainBlock([], 1), undefined);
  assert.equal(plainBlock([{ fileBlock: 0, blocks: 2, block: 7 }], 4097), 7);
  assert.equal(plainBlock([{ fileBlock: 0, blocks: 1, block: 7 }], 4097), undefined);
  assert.equal(plainBlock([{ fileBlock: 1, blocks: 1, block: 7 }], 8192), undefined);
});

test("chunks are as large as the ends of runs allow; the file's end need not be one of a chunk", () => {
  const shape = (size: number, ...runs: [fileBlock: number, blocks: number][]): [bits: number, count: number] => {
    const { bits, count } = shapeChunks(
      runs.map(([fileBlock, blocks]) => ({ fileBlock, blocks, block: 100 })),
      size * 4096,
    );
    return [bits, count];
  };
  assert.deepEqual(shape(100), [18, 1], "a hole");
  assert.deepEqual(shape(100, [64, 36]), [6, 2]);
  assert.deepEqual(shape(101, [64, 36]), [2, 26]);
  assert.deepEqual(shape(3, [1, 1]), [0, 3]);
});

test("each chunk has its address or none", () => {
  const runs = [
    { fileBlock: 4, blocks: 4, block: 50 },
    { fileBlock: 10, blocks: 1, block: 70 },
  ];
  const shape = shapeChunks(runs, 11 * 4096);
  assert.deepEqual(shape, { bits: 1, count: 6 });
  const map = Buffer.alloc(28);
  encodeChunks(runs, shape, map, 4);
  assert.deepEqual([...new Uint32Array(map.buffer, map.byteOffset, 7)], [0, 0xffffffff, 0xffffffff, 50, 52, 0xffffffff, 70]);
});
