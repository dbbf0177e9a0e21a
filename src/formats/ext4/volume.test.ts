import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeExtentLeaf, INLINE_EXTENTS, type Extent } from "./extent-tree.ts";
import { formatVolume } from "./format.ts";
import type { Inode } from "./inode.ts";
import { INODE_FLAG } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";

const EPOCH = { seconds: 0, nanoseconds: 0 };
const FORMAT = { bytes: 256 * 2 ** 20, uuid: Buffer.alloc(16, 1), hashSeed: Buffer.alloc(16, 2) };

function emptyFile(): Inode {
  const block = encodeExtentLeaf([], 60, INLINE_EXTENTS);
  const zeros = { uid: 0, gid: 0, size: 0, sectors: 0, generation: 0, xattrBlock: 0, version: 0, createTime: 0, createTimeExtra: 0 };
  return {
    ...zeros,
    mode: FILE_KIND.file,
    links: 1,
    flags: INODE_FLAG.extents,
    atime: EPOCH,
    mtime: EPOCH,
    ctime: EPOCH,
    block,
    extraIsize: 32,
  };
}

function scattered(count: number): Extent[] {
  return Array.from({ length: count }, (_, index) => ({
    fileBlock: index * 2,
    blocks: 1,
    block: 20_000 + index,
    unwritten: index % 7 === 0,
  }));
}

test("extents come back from trees of every depth, and shrinking frees the tree's blocks", () => {
  const volume = formatVolume(FORMAT);
  const inode = emptyFile();
  for (const [count, depth, nodes] of [
    [0, 0, 0],
    [4, 0, 0],
    [5, 1, 1],
    [4 * 340, 1, 4],
    [4 * 340 + 1, 2, 6],
    [4 * 340 * 340 + 1, 3, 4 * 340 + 1 + 5 + 1],
    [3, 0, 0],
  ]) {
    volume.beginLayer(40_000);
    volume.setExtents(12, inode, scattered(count));
    assert.equal(Buffer.from(inode.block).readUInt16LE(6), depth, `${count} extents`);
    const found = volume.extents(12, inode);
    assert.deepEqual(found.extents, scattered(count));
    assert.equal(found.nodes.length, nodes);
    assert.equal(inode.sectors, (count + nodes) * 8);
    volume.settle();
  }
});

test("neighbours are joined and long extents divided", () => {
  const volume = formatVolume(FORMAT);
  const inode = emptyFile();
  const extent = (fileBlock: number, blocks: number, block: number, unwritten = false): Extent => ({ fileBlock, blocks, block, unwritten });
  volume.setExtents(12, inode, [extent(0, 10, 30_000), extent(10, 5, 30_010), extent(15, 1, 40_000)]);
  assert.deepEqual(volume.extents(12, inode).extents, [extent(0, 15, 30_000), extent(15, 1, 40_000)]);
  volume.setExtents(12, inode, [extent(0, 70_000, 50_000)]);
  const blocks = (): number[] => volume.extents(12, inode).extents.map((own) => own.blocks);
  assert.deepEqual(blocks(), [32768, 32768, 4464]);
  volume.setExtents(12, inode, [extent(0, 32768, 50_000, true)]);
  assert.deepEqual(blocks(), [32767, 1], "an unwritten extent holds one block less");
});
