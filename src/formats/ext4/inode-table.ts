import { crc32cRaw } from "../../bytes/crc32c.ts";
import { unsupported } from "../../errors.ts";
import { nextBit, setBits } from "./block-allocator.ts";
import { inodeSeed } from "./checksum.ts";
import type { Group } from "./group-descriptor.ts";
import { decodeInode, encodeInode, type Inode } from "./inode.ts";
import { BLOCK_BYTES, EXTRA_ISIZE, GROUP_FLAG, INODE_BYTES, inodeStruct } from "./layout.ts";
import type { MetadataBlocks } from "./metadata-blocks.ts";
import type { Superblock } from "./superblock.ts";
import { parseInodeXattrs } from "./xattr.ts";

/** Bytes for attributes behind an inode's fields. */
export const XATTR_AREA_BYTES = INODE_BYTES - 128 - EXTRA_ISIZE;
/** The area of an inode that has none. */
export const NO_XATTRS: Uint8Array = new Uint8Array(XATTR_AREA_BYTES);

const INODES_PER_BLOCK = BLOCK_BYTES / INODE_BYTES;

/** Inode records and the bitmaps that say which are used. Numbers are handed out front to back. */
export class InodeTable {
  readonly #superblock: Superblock;
  readonly #groups: Group[];
  readonly #blocks: MetadataBlocks;
  readonly #changed = new Set<number>();
  /** The record being written: allocating one for each of a million inodes costs more than filling it. */
  readonly #scratch = Buffer.alloc(INODE_BYTES);
  readonly #scratchView = new DataView(this.#scratch.buffer, this.#scratch.byteOffset, INODE_BYTES);
  #next = 1;
  /** Numbers from here to `#next` are handed out but not yet marked; Infinity once a free number has to be searched. */
  #firstUnmarked = Infinity;
  #freeInodes: number;
  /** No inode in this group or behind it is in use. */
  #usedEnd: number;

  constructor(superblock: Superblock, groups: Group[], blocks: MetadataBlocks) {
    this.#superblock = superblock;
    this.#groups = groups;
    this.#blocks = blocks;
    this.#freeInodes = groups.reduce((sum, group) => sum + group.freeInodes, 0);
    this.#usedEnd = groups.length;
  }

  freeInodes(): number {
    return this.#freeInodes;
  }

  /** Starts a layer: numbers come after the highest that is in use, and from the lowest free one when those run out. */
  beginLayer(): void {
    this.#markHandedOut();
    this.#next = this.#highestUsed() + 1;
    this.#firstUnmarked = this.#next;
  }

  #highestUsed(): number {
    const { inodesPerGroup } = this.#superblock;
    for (let number = this.#usedEnd - 1; number >= 0; number--) {
      this.#usedEnd = number + 1;
      const group = this.#groups[number];
      if (group.flags & GROUP_FLAG.inodeUninit || group.freeInodes === inodesPerGroup) continue;
      const bitmap = this.#blocks.get(group.inodeBitmap);
      for (let bit = inodesPerGroup - 1; bit >= 0; bit--) {
        if (bitmap[bit >>> 3] & (1 << (bit & 7))) return number * inodesPerGroup + bit + 1;
      }
    }
    return this.#superblock.fields.firstInode - 1;
  }

  allocate(directory: boolean): number {
    const { inodesCount } = this.#superblock.fields;
    if (this.#firstUnmarked > this.#next || this.#next > inodesCount) return this.#search(directory);
    if (directory) this.#groups[this.#groupOf(this.#next)].usedDirectories++;
    return this.#next++;
  }

  #search(directory: boolean): number {
    this.#markHandedOut();
    this.#firstUnmarked = Infinity;
    const found = this.#firstFree(this.#next) ?? this.#firstFree(this.#superblock.fields.firstInode);
    if (found === undefined) {
      throw unsupported(`all ${this.#superblock.fields.inodesCount} inodes of the filesystem are in use; give it more with --vsize`);
    }
    this.#next = found + 1;
    this.mark(found, directory);
    return found;
  }

  /** Marks what was handed out in order since the last time. */
  #markHandedOut(): void {
    const { inodesPerGroup } = this.#superblock;
    for (let inode = this.#firstUnmarked; inode < this.#next;) {
      const { group, bit, bitmap } = this.#bitmapOf(inode);
      const end = Math.min(inodesPerGroup, bit + this.#next - inode);
      setBits(bitmap, bit, end, true);
      group.freeInodes -= end - bit;
      this.#freeInodes -= end - bit;
      group.unusedInodes = Math.min(group.unusedInodes, inodesPerGroup - end);
      inode += end - bit;
    }
    if (this.#firstUnmarked < this.#next) this.#firstUnmarked = this.#next;
  }

  #groupOf(inode: number): number {
    return Math.floor((inode - 1) / this.#superblock.inodesPerGroup);
  }

  #firstFree(from: number): number | undefined {
    const { inodesPerGroup } = this.#superblock;
    for (let number = Math.floor((from - 1) / inodesPerGroup); number < this.#groups.length; number++) {
      const group = this.#groups[number];
      if (group.freeInodes === 0) continue;
      const first = Math.max(0, from - 1 - number * inodesPerGroup);
      if (group.flags & GROUP_FLAG.inodeUninit) return number * inodesPerGroup + first + 1;
      const bit = nextBit(this.#blocks.get(group.inodeBitmap), first, inodesPerGroup, false);
      if (bit < inodesPerGroup) return number * inodesPerGroup + bit + 1;
    }
    return undefined;
  }

  /** Marks an inode used. */
  mark(inode: number, directory: boolean): void {
    const { group, bit, bitmap } = this.#bitmapOf(inode);
    setBits(bitmap, bit, bit + 1, true);
    group.freeInodes--;
    this.#freeInodes--;
    if (directory) group.usedDirectories++;
    group.unusedInodes = Math.min(group.unusedInodes, this.#superblock.inodesPerGroup - bit - 1);
  }

  /** Frees an inode and clears its record. */
  free(inode: number, directory: boolean): void {
    this.#markHandedOut();
    const { group, bit, bitmap } = this.#bitmapOf(inode);
    setBits(bitmap, bit, bit + 1, false);
    group.freeInodes++;
    this.#freeInodes++;
    if (directory) group.usedDirectories--;
    const offset = this.#offsetOf(inode);
    this.#blocks.change(this.blockOf(inode)).fill(0, offset, offset + INODE_BYTES);
  }

  #bitmapOf(inode: number): { group: Group; bit: number; bitmap: Buffer } {
    const { inodesPerGroup } = this.#superblock;
    const number = this.#groupOf(inode);
    const group = this.#groups[number];
    if (group.flags & GROUP_FLAG.inodeUninit) {
      const bitmap = new Uint8Array(BLOCK_BYTES);
      setBits(bitmap, inodesPerGroup, BLOCK_BYTES * 8, true);
      this.#blocks.create(group.inodeBitmap, bitmap);
      group.flags &= ~GROUP_FLAG.inodeUninit;
    }
    this.#changed.add(number);
    this.#usedEnd = Math.max(this.#usedEnd, number + 1);
    return { group, bit: (inode - 1) % inodesPerGroup, bitmap: this.#blocks.change(group.inodeBitmap) };
  }

  /** The block that holds an inode's record. */
  blockOf(inode: number): number {
    const { inodesPerGroup } = this.#superblock;
    return this.#groups[this.#groupOf(inode)].inodeTable + Math.floor(((inode - 1) % inodesPerGroup) / INODES_PER_BLOCK);
  }

  /** Where in that block it is. */
  #offsetOf(inode: number): number {
    return (((inode - 1) % this.#superblock.inodesPerGroup) % INODES_PER_BLOCK) * INODE_BYTES;
  }

  #record(inode: number): Buffer {
    const offset = this.#offsetOf(inode);
    return this.#blocks.get(this.blockOf(inode)).subarray(offset, offset + INODE_BYTES);
  }

  read(inode: number): Inode {
    return decodeInode(this.#record(inode));
  }

  /** The kind bits and permissions alone. */
  mode(inode: number): number {
    return this.#blocks.get(this.blockOf(inode)).readUInt16LE(this.#offsetOf(inode));
  }

  /** The attribute area of an inode's record. */
  xattrArea(inode: number): Uint8Array {
    const record = this.#record(inode);
    const extraIsize = record.readUInt16LE(inodeStruct.fields.extraIsize[0]);
    if (extraIsize === EXTRA_ISIZE) return record.subarray(INODE_BYTES - XATTR_AREA_BYTES);
    if (parseInodeXattrs(record.subarray(128 + extraIsize), `inode ${inode}`).length === 0) return NO_XATTRS;
    throw unsupported(`inode ${inode} keeps attributes behind ${extraIsize} bytes of extra fields, expected ${EXTRA_ISIZE}`);
  }

  /** Writes an inode's record with its attribute area and checksum. */
  write(number: number, inode: Inode, xattrArea: Uint8Array): void {
    const record = this.#scratch;
    encodeInode(inode, this.#scratchView);
    record.set(xattrArea, INODE_BYTES - XATTR_AREA_BYTES);
    if (this.#superblock.hasMetadataCsum) {
      // The checksum's own bytes are zero by now, as they count.
      const checksum = crc32cRaw(inodeSeed(this.#superblock.seed, number, inode.generation), record);
      this.#scratchView.setUint16(inodeStruct.fields.checksumLow[0], checksum & 0xffff, true);
      this.#scratchView.setUint16(inodeStruct.fields.checksumHigh[0], checksum >>> 16, true);
    }
    this.#blocks.write(this.blockOf(number), record, this.#offsetOf(number));
  }

  /** Ends a layer: brings the bitmaps' checksums up to date and returns the groups that changed. */
  settle(): number[] {
    this.#markHandedOut();
    for (const number of this.#changed) {
      if (!this.#superblock.hasMetadataCsum) continue;
      const bitmap = this.#blocks.get(this.#groups[number].inodeBitmap);
      this.#groups[number].inodeBitmapCsum = crc32cRaw(this.#superblock.seed, bitmap, 0, this.#superblock.inodesPerGroup / 8);
    }
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }
}
