import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { PackedBlocks } from "./packed-blocks.ts";

const noise = randomFillSync(Buffer.alloc(4096));

/** Every third block does not shrink, so that a few hundred fill a chunk. */
function content(block: number, version: number): Buffer {
  if (block % 3 === 0) return Buffer.from(noise.map((byte) => byte ^ block ^ version));
  return Buffer.alloc(4096, `block ${block} in version ${version}`);
}

test("blocks come back as they were added last, and zeros where there is none", () => {
  const step = fc.record({ block: fc.nat(40), count: fc.nat(400), adds: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const packed = new PackedBlocks(4096);
      const versions = new Map<number, number>();
      const found = Buffer.alloc(4096);
      for (const [version, { block, count, adds }] of steps.entries()) {
        for (let at = block; at < block + count; at++) {
          packed.delete(at);
          versions.delete(at);
          if (!adds) continue;
          packed.add(at, content(at, version));
          versions.set(at, version);
        }
      }
      for (let block = 0; block < 450; block += 7) {
        packed.read(block, found.fill(1));
        const version = versions.get(block);
        assert.ok(found.equals(version === undefined ? Buffer.alloc(4096) : content(block, version)), `block ${block}`);
      }
    }),
    { verbose: 1, numRuns: 25 },
  );
});

test("what is left of many blocks takes the room of few", () => {
  const packed = new PackedBlocks(4096);
  const large = (block: number): Buffer => content(block * 3, 0);
  for (let block = 0; block < 8000; block++) packed.add(block, large(block));
  for (let block = 0; block < 8000; block++) if (block % 10 !== 0) packed.delete(block);
  const bytes = Buffer.alloc(4096);
  for (let block = 0; block < 8000; block += 10) {
    packed.read(block, bytes);
    assert.ok(bytes.equals(large(block)));
  }
  assert.ok(packed.chunkCount <= 8, `${packed.chunkCount} chunks of 1 MiB for 800 blocks of 4 KiB`);
});

test("block numbers beyond 32 bits stay apart", () => {
  const packed = new PackedBlocks(4096);
  const bytes = Buffer.alloc(4096);
  packed.add(5, content(1, 1));
  packed.add(2 ** 32 + 5, content(2, 2));
  packed.delete(5);
  packed.read(2 ** 32 + 5, bytes);
  assert.ok(bytes.equals(content(2, 2)));
});
