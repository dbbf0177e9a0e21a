import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";
import { MetadataBlocks } from "./metadata-blocks.ts";

test("packed blocks come back as they were, also those that do not shrink", () => {
  const blocks = new MetadataBlocks(4096);
  const noise = randomFillSync(Buffer.alloc(4096));
  const content = (block: number): Buffer => (block % 50 === 0 ? noise : Buffer.alloc(4096, `block ${block}`));
  for (let block = 0; block < 9000; block++) {
    blocks.create(block, content(block));
    blocks.pack();
  }
  for (const block of [0, 1, 50, 4095, 8999]) assert.deepEqual(blocks.peek(block), content(block));
  blocks.change(1).fill(7);
  for (let block = 9000; block < 20_000; block++) {
    blocks.create(block, content(block));
    blocks.pack();
  }
  assert.deepEqual(blocks.get(1), Buffer.alloc(4096, 7));
  blocks.drop(2);
  assert.deepEqual(blocks.get(2), Buffer.alloc(4096), "a block that was dropped is zeros");
  assert.equal(blocks.takeDirty().length, 19_999);
});

test("writing what is there already changes nothing", () => {
  const blocks = new MetadataBlocks(4096);
  blocks.load(5, Buffer.alloc(4096, 1));
  blocks.write(5, Buffer.alloc(10, 1), 100);
  blocks.write(6, Buffer.alloc(4096));
  assert.deepEqual(blocks.takeDirty(), []);
  blocks.write(5, Buffer.alloc(10, 2), 100);
  assert.deepEqual(blocks.takeDirty(), [5]);
  assert.deepEqual(blocks.takeDirty(), []);
});
