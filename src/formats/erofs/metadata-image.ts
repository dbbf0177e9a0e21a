import { encodeDirectoryBlock } from "./directory.ts";
import { encodeChunks, shapeChunks, type ChunkShape } from "./chunk-map.ts";
import { ROOT, type ErofsTree } from "./erofs-tree.ts";
import type { InodeTable } from "./inode-table.ts";
import {
  BLOCK_BYTES,
  compactInodeStruct,
  DATA_LAYOUT,
  extendedInodeStruct,
  FORMAT_EXTENDED,
  INCOMPAT,
  NO_BLOCK,
  SLOT_BYTES,
  xattrHeaderStruct,
} from "./layout.ts";
import { DIRENT_TYPE, FILE_KIND } from "../../tree/file-kind.ts";
import { SlotAllocator } from "./slot-allocator.ts";
import { encodeSuperblock } from "./superblock.ts";
import { orderTree, type OrderedDirectory, type TreeOrder } from "./tree-order.ts";
import { XattrPlan } from "./xattr-plan.ts";

/** What a filesystem keeps for all of its life. */
export interface VolumeName {
  readonly uuid: Uint8Array;
  readonly volumeName: Uint8Array;
}

/** Where an inode's data is, and what that takes. */
interface Placement {
  readonly layout: number;
  /** Size in bytes, as the inode states it. */
  readonly size: number;
  /** Bytes behind inode and attributes: the tail of a directory, a symlink's target, a chunk map. */
  readonly behind: number;
  /** Whole blocks of metadata. */
  readonly blocks: number;
  readonly chunks: ChunkShape | undefined;
}

const MAX_U16 = 0xffff;
const { fields: COMPACT, size: COMPACT_BYTES } = compactInodeStruct;
const { fields: EXTENDED, size: EXTENDED_BYTES } = extendedInodeStruct;

/**
 * The metadata of a whole tree, as it lies on the device: inodes with what is inline, then blocks of directories and long
 * symlinks, then shared attributes. Block 0 is the superblock.
 */
export class MetadataImage {
  readonly endBlock: number;
  readonly #firstBlock: number;
  readonly #tree: ErofsTree;
  readonly #inodes: InodeTable;
  readonly #order: TreeOrder;
  readonly #epoch: number;
  readonly #xattrs: XattrPlan;
  /** Byte offset by inode. */
  readonly #offsets: Float64Array;
  /** First whole block by inode, counted from the first of the blocks behind the inodes. */
  readonly #wholeBlocks = new Map<number, number>();
  readonly #blocksStart: number;
  readonly #bytes: Buffer;
  readonly #superblock: Uint8Array;
  #hasChunks = false;

  /** @param checkEnd throws if there is no such block */
  constructor(tree: ErofsTree, volumeName: VolumeName, firstBlock: number, checkEnd: (endBlock: number) => void) {
    this.#tree = tree;
    this.#inodes = tree.inodes;
    this.#firstBlock = firstBlock;
    this.#order = orderTree(tree);
    this.#epoch = this.#commonTime();
    this.#xattrs = new XattrPlan(tree.xattrSets, this.#xattrUses());
    this.#offsets = new Float64Array(tree.inodes.end);
    const { slotBytes, wholeBlocks } = this.#place();
    this.#blocksStart = Math.ceil(slotBytes / BLOCK_BYTES);
    const sharedStart = this.#blocksStart + wholeBlocks;
    const sharedBlocks = Math.ceil(this.#xattrs.sharedBytes / BLOCK_BYTES);
    this.endBlock = firstBlock + sharedStart + sharedBlocks;
    checkEnd(this.endBlock);
    this.#bytes = Buffer.alloc((this.endBlock - firstBlock) * BLOCK_BYTES);
    for (const number of this.#order.inodes) this.#encode(number);
    this.#xattrs.encodeShared(this.#bytes, sharedStart * BLOCK_BYTES);
    this.#superblock = encodeSuperblock({
      ...volumeName,
      rootNid: this.#nid(ROOT),
      inodes: this.#order.inodes.length,
      buildSeconds: this.#epoch,
      blocks: this.endBlock,
      metaBlock: firstBlock,
      xattrBlock: sharedBlocks > 0 ? firstBlock + sharedStart : 0,
      incompat: this.#hasChunks ? INCOMPAT.chunkedFile : 0,
    });
  }

  /** A block of the image, or block 0. */
  block(block: number): Uint8Array {
    if (block === 0) return this.#superblock;
    const start = (block - this.#firstBlock) * BLOCK_BYTES;
    return this.#bytes.subarray(start, start + BLOCK_BYTES);
  }

  /** The numbers of all blocks; the root directory and the superblock, which a mount reads first, are the last. */
  blocks(): number[] {
    const rootBlocks = this.#placementOf(ROOT).blocks;
    const rootStart = this.#firstBlock + this.#blocksStart + (this.#wholeBlocks.get(ROOT) ?? 0);
    const inodeBlock = this.#firstBlock + Math.floor(this.#offsets[ROOT] / BLOCK_BYTES);
    const cold: number[] = [];
    const hot: number[] = [];
    for (let block = this.#firstBlock; block < this.endBlock; block++) {
      const isRoots = block === inodeBlock || (block >= rootStart && block < rootStart + rootBlocks);
      (isRoots ? hot : cold).push(block);
    }
    return [...cold, ...hot.reverse(), 0];
  }

  /** The modification time that most inodes have of those that could be compact; the earliest of several. */
  #commonTime(): number {
    const counts = new Map<number, number>();
    for (const number of this.#order.inodes) {
      const time = this.#inodes.seconds(number);
      if (time >= 0 && this.#fitsCompact(number)) counts.set(time, (counts.get(time) ?? 0) + 1);
    }
    let common = 0;
    for (const [time, count] of counts) {
      const most = counts.get(common) ?? 0;
      if (count > most || (count === most && time < common)) common = time;
    }
    return common;
  }

  /** Whether everything but the modification time has room in a compact inode. */
  #fitsCompact(number: number): boolean {
    const inodes = this.#inodes;
    return (
      inodes.nanoseconds(number) === 0 &&
      inodes.uid(number) <= MAX_U16 &&
      inodes.gid(number) <= MAX_U16 &&
      inodes.size(number) < 2 ** 32 &&
      this.#linksOf(number) <= MAX_U16
    );
  }

  #isCompact(number: number): boolean {
    return this.#inodes.seconds(number) === this.#epoch && this.#fitsCompact(number);
  }

  #linksOf(number: number): number {
    const directory = this.#order.directories.get(number);
    return directory ? 2 + directory.childDirectories : this.#inodes.links(number);
  }

  #xattrUses(): Map<number, number> {
    const uses = new Map<number, number>();
    for (const number of this.#order.inodes) {
      const set = this.#inodes.xattrSet(number);
      uses.set(set, (uses.get(set) ?? 0) + 1);
    }
    return uses;
  }

  /** Gives every inode its place. The root is the first, so that its number is small. */
  #place(): { slotBytes: number; wholeBlocks: number } {
    const slots = new SlotAllocator();
    let wholeBlocks = 0;
    for (const number of this.#order.inodes) {
      const { layout, behind, blocks } = this.#placementOf(number);
      const head = this.#headBytes(number);
      const together = layout === DATA_LAYOUT.inline ? head + behind : this.#inodeBytes(number);
      this.#offsets[number] = slots.take(head + behind, together);
      if (blocks > 0) this.#wholeBlocks.set(number, wholeBlocks);
      wholeBlocks += blocks;
    }
    return { slotBytes: slots.end, wholeBlocks };
  }

  #nid(number: number): number {
    return this.#offsets[number] / SLOT_BYTES;
  }

  #inodeBytes(number: number): number {
    return this.#isCompact(number) ? COMPACT_BYTES : EXTENDED_BYTES;
  }

  /** Bytes of an inode and its attributes. */
  #headBytes(number: number): number {
    return this.#inodeBytes(number) + this.#xattrs.areaBytes(this.#inodes.xattrSet(number));
  }

  #placementOf(number: number): Placement {
    const directory = this.#order.directories.get(number);
    if (directory) {
      const { firstNames, lastBytes } = directory.shape;
      return this.#inBlocks(number, (firstNames.length - 1) * BLOCK_BYTES + lastBytes);
    }
    if (this.#tree.kind(number) === "symlink") return this.#inBlocks(number, this.#tree.linkTarget(number).length);
    const size = this.#inodes.size(number);
    const runs = this.#tree.runs(number);
    if (!runs) return { layout: DATA_LAYOUT.plain, size, behind: 0, blocks: 0, chunks: undefined };
    const chunks = shapeChunks(runs, size);
    return { layout: DATA_LAYOUT.chunks, size, behind: chunks.count * 4, blocks: 0, chunks };
  }

  /** Data that is metadata: in whole blocks, the rest inline if it has room in a block together with the inode. */
  #inBlocks(number: number, size: number): Placement {
    const tail = size % BLOCK_BYTES;
    if (tail > 0 && this.#headBytes(number) + tail <= BLOCK_BYTES)
      return { layout: DATA_LAYOUT.inline, size, behind: tail, blocks: (size - tail) / BLOCK_BYTES, chunks: undefined };
    return { layout: DATA_LAYOUT.plain, size, behind: 0, blocks: Math.ceil(size / BLOCK_BYTES), chunks: undefined };
  }

  #encode(number: number): void {
    const placement = this.#placementOf(number);
    const offset = this.#offsets[number];
    this.#encodeInode(number, placement, offset);
    const inodeBytes = this.#inodeBytes(number);
    this.#xattrs.encodeArea(this.#inodes.xattrSet(number), this.#bytes, offset + inodeBytes);
    const behind = offset + this.#headBytes(number);
    const directory = this.#order.directories.get(number);
    if (directory) this.#encodeDirectory(number, directory, placement, behind);
    else if (placement.chunks) encodeChunks(this.#tree.runs(number) ?? [], placement.chunks, this.#bytes, behind);
    else if (this.#tree.kind(number) === "symlink") {
      this.#bytes.write(this.#tree.linkTarget(number), placement.blocks > 0 ? this.#wholeBlockOffset(number) : behind, "latin1");
    }
    if (placement.chunks) this.#hasChunks = true;
  }

  /** Field by field instead of through the table: it is done for every inode of the tree in every layer. */
  #encodeInode(number: number, { layout, size, blocks, chunks }: Placement, offset: number): void {
    const [bytes, inodes] = [this.#bytes, this.#inodes];
    const xattrBytes = this.#xattrs.areaBytes(inodes.xattrSet(number));
    const compact = this.#isCompact(number);
    const at = compact ? COMPACT : EXTENDED;
    bytes.writeUInt16LE((layout << 1) | (compact ? 0 : FORMAT_EXTENDED), offset);
    bytes.writeUInt16LE(xattrBytes === 0 ? 0 : (xattrBytes - xattrHeaderStruct.size) / 4 + 1, offset + at.xattrCount[0]);
    bytes.writeUInt16LE(inodes.mode(number), offset + at.mode[0]);
    bytes.writeUInt32LE(chunks ? chunks.bits : this.#dataOf(number, layout, blocks), offset + at.data[0]);
    if (compact) {
      bytes.writeUInt16LE(this.#linksOf(number), offset + COMPACT.links[0]);
      bytes.writeUInt32LE(size, offset + COMPACT.size[0]);
      bytes.writeUInt16LE(inodes.uid(number), offset + COMPACT.uid[0]);
      bytes.writeUInt16LE(inodes.gid(number), offset + COMPACT.gid[0]);
      return;
    }
    bytes.writeUInt32LE(this.#linksOf(number), offset + EXTENDED.links[0]);
    bytes.writeBigUInt64LE(BigInt(size), offset + EXTENDED.size[0]);
    bytes.writeUInt32LE(inodes.uid(number), offset + EXTENDED.uid[0]);
    bytes.writeUInt32LE(inodes.gid(number), offset + EXTENDED.gid[0]);
    bytes.writeBigInt64LE(BigInt(inodes.seconds(number)), offset + EXTENDED.mtimeSeconds[0]);
    bytes.writeUInt32LE(inodes.nanoseconds(number), offset + EXTENDED.mtimeNanoseconds[0]);
  }

  /** First block of the data, or a device number. */
  #dataOf(number: number, layout: number, blocks: number): number {
    if (blocks > 0) return this.#firstBlock + this.#blocksStart + this.#wholeBlocks.get(number)!;
    return layout === DATA_LAYOUT.inline ? NO_BLOCK : this.#inodes.data(number);
  }

  #wholeBlockOffset(number: number): number {
    return (this.#blocksStart + this.#wholeBlocks.get(number)!) * BLOCK_BYTES;
  }

  #encodeDirectory(number: number, { parent, names, shape }: OrderedDirectory, { blocks }: Placement, behind: number): void {
    const children = this.#tree.names(number);
    const entryOf = (name: string): { nid: number; type: number } => {
      const child = name === "." ? number : name === ".." ? parent : children.get(name)!;
      return { nid: this.#nid(child), type: DIRENT_TYPE.get(this.#inodes.mode(child) & FILE_KIND.mask) ?? 0 };
    };
    for (const [index, first] of shape.firstNames.entries()) {
      const end = shape.firstNames[index + 1] ?? names.length;
      const offset = index < blocks ? this.#wholeBlockOffset(number) + index * BLOCK_BYTES : behind;
      encodeDirectoryBlock(names, first, end, entryOf, this.#bytes, offset);
    }
  }
}
