import { crc32cRaw } from "../../bytes/crc32c.ts";
import { unsupported } from "../../errors.ts";
import { BlockAllocator, type BlockRun } from "./block-allocator.ts";
import { inodeSeed } from "./checksum.ts";
import {
  encodeExtentIndex,
  encodeExtentLeaf,
  extentsPerBlock,
  INLINE_EXTENTS,
  MAX_EXTENT_BLOCKS,
  NO_EXTENTS,
  parseExtentNode,
  ROOT_BYTES,
  type Extent,
  type ExtentIndex,
} from "./extent-tree.ts";
import { encodeGroup, type Group } from "./group-descriptor.ts";
import type { Inode } from "./inode.ts";
import { InodeTable } from "./inode-table.ts";
import { BLOCK_BYTES, INODE_FLAG, RO_COMPAT, SECTORS_PER_BLOCK, SUPERBLOCK_OFFSET, superblockStruct } from "./layout.ts";
import { MetadataBlocks } from "./metadata-blocks.ts";
import { superblockChecksum, type Superblock } from "./superblock.ts";

const NO_TREE: { readonly extents: readonly Extent[]; readonly nodes: readonly number[] } = { extents: [], nodes: [] };

/** A filesystem's metadata in memory: its blocks, who owns which, and the extent trees that say so. */
export class Volume {
  readonly superblock: Superblock;
  readonly groups: Group[];
  readonly blocks: MetadataBlocks;
  readonly allocator: BlockAllocator;
  readonly inodes: InodeTable;
  /** Where the next metadata block should go. */
  #goal = 0;

  constructor(superblock: Superblock, groups: Group[], blocks = new MetadataBlocks(BLOCK_BYTES)) {
    this.superblock = superblock;
    this.groups = groups;
    this.blocks = blocks;
    this.allocator = new BlockAllocator(superblock, groups, blocks);
    this.inodes = new InodeTable(superblock, groups, blocks);
  }

  /** Starts a layer with `payloadBlocks` blocks of payload, and returns where the first should go. */
  beginLayer(payloadBlocks: number): number {
    const run = this.allocator.longestFreeRun();
    this.allocator.beginLayer(run, payloadBlocks);
    this.#goal = run.block + payloadBlocks;
    this.inodes.beginLayer();
    return run.block;
  }

  /** Allocates metadata blocks. */
  allocate(count: number): BlockRun[] {
    const runs = this.allocator.allocate(count, this.#goal);
    const last = runs.at(-1);
    if (last) this.#goal = last.block + last.blocks;
    return runs;
  }

  /** Frees a metadata block and its content. */
  release(block: number): void {
    this.blocks.drop(block);
    this.allocator.free({ block, blocks: 1 });
  }

  seedOf(number: number, inode: Inode): number | undefined {
    return this.superblock.hasMetadataCsum ? inodeSeed(this.superblock.seed, number, inode.generation) : undefined;
  }

  /** The extents of an inode, and the blocks that its tree takes. */
  extents(number: number, inode: Inode): { extents: Extent[]; nodes: number[] } {
    if (!(inode.flags & INODE_FLAG.extents)) {
      throw unsupported(`inode ${number} has a block map instead of extents; it can be read, but neither changed nor removed`);
    }
    const extents: Extent[] = [];
    const nodes: number[] = [];
    const visit = (bytes: Uint8Array): void => {
      const node = parseExtentNode(bytes, `inode ${number}`);
      extents.push(...node.extents);
      for (const child of node.children) {
        nodes.push(child.block);
        visit(this.blocks.get(child.block));
      }
    };
    visit(inode.block);
    return { extents, nodes };
  }

  /**
   * Gives an inode its extents, reusing the blocks of its tree so far, and counts its sectors.
   * `extents` are ascending; neighbours are joined, long ones split.
   */
  setExtents(number: number, inode: Inode, extents: readonly Extent[]): void {
    if (inode.block === NO_EXTENTS && extents.length === 1 && isJoined(extents)) {
      inode.block = encodeExtentLeaf(extents, ROOT_BYTES, INLINE_EXTENTS);
      inode.sectors += extents[0].blocks * SECTORS_PER_BLOCK;
      return;
    }
    const before = inode.block === NO_EXTENTS ? NO_TREE : this.extents(number, inode);
    const joined = isJoined(extents) ? extents : joinExtents(extents);
    const spare = [...before.nodes];
    const nodes: number[] = [];
    inode.block = this.#encodeTree(joined, inode, number, () => {
      const block = spare.shift() ?? this.allocate(1)[0].block;
      nodes.push(block);
      return block;
    });
    for (const block of spare) this.release(block);
    const added = countBlocks(joined) + nodes.length - countBlocks(before.extents) - before.nodes.length;
    inode.sectors += added * SECTORS_PER_BLOCK;
    if (inode.sectors >= 2 ** 32) this.superblock.fields.roCompat |= RO_COMPAT.hugeFile;
  }

  /** Builds the tree bottom up and returns its root. */
  #encodeTree(extents: readonly Extent[], inode: Inode, number: number, nextBlock: () => number): Uint8Array {
    if (extents.length <= INLINE_EXTENTS) return encodeExtentLeaf(extents, ROOT_BYTES, INLINE_EXTENTS);
    const capacity = extentsPerBlock(BLOCK_BYTES);
    const seed = this.seedOf(number, inode);
    const put = (bytes: Uint8Array): number => {
      const block = nextBlock();
      if (seed !== undefined) new DataView(bytes.buffer).setUint32(BLOCK_BYTES - 4, crc32cRaw(seed, bytes, 0, BLOCK_BYTES - 4), true);
      this.blocks.write(block, bytes);
      return block;
    };
    let level: ExtentIndex[] = chunks(extents, capacity).map((chunk) => ({
      fileBlock: chunk[0].fileBlock,
      block: put(encodeExtentLeaf(chunk, BLOCK_BYTES, capacity)),
    }));
    for (let depth = 1; ; depth++) {
      if (level.length <= INLINE_EXTENTS) return encodeExtentIndex(level, depth, ROOT_BYTES, INLINE_EXTENTS);
      level = chunks(level, capacity).map((chunk) => ({
        fileBlock: chunk[0].fileBlock,
        block: put(encodeExtentIndex(chunk, depth, BLOCK_BYTES, capacity)),
      }));
    }
  }

  /** Writes content into newly allocated blocks, padded with zeros, and returns their extents. */
  store(content: Uint8Array): Extent[] {
    const extents: Extent[] = [];
    let fileBlock = 0;
    for (const run of this.allocate(Math.ceil(content.length / BLOCK_BYTES))) {
      for (let index = 0; index < run.blocks; index++) {
        const bytes = Buffer.alloc(BLOCK_BYTES);
        bytes.set(content.subarray((fileBlock + index) * BLOCK_BYTES, (fileBlock + index + 1) * BLOCK_BYTES));
        this.blocks.create(run.block + index, bytes);
      }
      extents.push({ fileBlock, blocks: run.blocks, block: run.block, unwritten: false });
      fileBlock += run.blocks;
    }
    return extents;
  }

  /** Ends a layer: bitmaps, group descriptors and superblock follow what was done. */
  settle(): void {
    this.writeGroups([...this.allocator.settle(), ...this.inodes.settle()]);
    this.#writeSuperblock();
  }

  /** Writes the descriptors of some groups. */
  writeGroups(numbers: Iterable<number>): void {
    const perBlock = BLOCK_BYTES / this.superblock.descriptorBytes;
    for (const number of numbers) {
      const block = this.blocks.change(1 + Math.floor(number / perBlock));
      encodeGroup(this.groups[number], number, this.superblock, block, (number % perBlock) * this.superblock.descriptorBytes);
    }
  }

  #writeSuperblock(): void {
    const bytes = Buffer.from(this.blocks.get(0).subarray(SUPERBLOCK_OFFSET, SUPERBLOCK_OFFSET + superblockStruct.size));
    const freeBlocks = this.allocator.freeBlocks();
    superblockStruct.encodeInto(bytes, {
      ...this.superblock.fields,
      freeBlocksLow: freeBlocks % 2 ** 32,
      freeBlocksHigh: Math.floor(freeBlocks / 2 ** 32),
      freeInodes: this.inodes.freeInodes(),
    });
    if (this.superblock.hasMetadataCsum) superblockStruct.encodeInto(bytes, { checksum: superblockChecksum(bytes) });
    this.blocks.write(0, bytes, SUPERBLOCK_OFFSET);
  }
}

function countBlocks(extents: readonly Extent[]): number {
  let blocks = 0;
  for (const extent of extents) blocks += extent.blocks;
  return blocks;
}

/** Most files are one piece. */
function isJoined(extents: readonly Extent[]): boolean {
  return extents.length === 0 || (extents.length === 1 && extents[0].blocks < MAX_EXTENT_BLOCKS);
}

function joinExtents(extents: readonly Extent[]): Extent[] {
  const joined: { fileBlock: number; blocks: number; block: number; unwritten: boolean }[] = [];
  for (const extent of extents) {
    for (let done = 0; done < extent.blocks;) {
      const last = joined.at(-1);
      const [fileBlock, block] = [extent.fileBlock + done, extent.block + done];
      const follows =
        last && last.fileBlock + last.blocks === fileBlock && last.block + last.blocks === block && last.unwritten === extent.unwritten;
      const limit = extent.unwritten ? MAX_EXTENT_BLOCKS - 1 : MAX_EXTENT_BLOCKS;
      if (follows && last.blocks < limit) {
        const taken = Math.min(limit - last.blocks, extent.blocks - done);
        last.blocks += taken;
        done += taken;
      } else {
        const taken = Math.min(limit, extent.blocks - done);
        joined.push({ fileBlock, blocks: taken, block, unwritten: extent.unwritten });
        done += taken;
      }
    }
  }
  return joined;
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) => items.slice(index * size, (index + 1) * size));
}
