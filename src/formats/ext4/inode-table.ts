import { crc32cRaw } from "../../bytes/crc32c.ts";
import { unsupported } from "../../errors.ts";
import { nextBit, setBits } from "./block-allocator.ts";
import { inodeChecksum, inodeSeed } from "./checksum.ts";
import type { Group } from "./group-descriptor.ts";
import { decodeInode, encodeInode, type Inode } from "./inode.ts";
import { BLOCK_BYTES, EXTRA_ISIZE, GROUP_FLAG, INODE_BYTES } from "./layout.ts";
import type { MetadataBlocks } from "./metadata-blocks.ts";
import type { Superblock } from "./superblock.ts";
import { parseInodeXattrs } from "./xattr.ts";

/** Bytes for attributes behind an inode's fields. */
export const XATTR_AREA_BYTES = INODE_BYTES - 128 - EXTRA_ISIZE;
/** The area of an inode that has none. */
export const NO_XATTRS: Uint8Array = new Uint8Array(XATTR_AREA_BYTES);

/** Inode records and the bitmaps that say which are used. Numbers are handed out front to back. */
export class InodeTable {
  readonly #superblock: Superblock;
  readonly #groups: Group[];
  readonly #blocks: MetadataBlocks;
  readonly #changed = new Set<number>();
  /** The record being written: allocating one for each of a million inodes costs more than filling it. */
  readonly #scratch = Buffer.alloc(INODE_BYTES);
  #next = 1;

  constructor(superblock: Superblock, groups: Group[], blocks: MetadataBlocks) {
    this.#superblock = superblock;
    this.#groups = groups;
    this.#blocks = blocks;
  }

  /** Starts a layer: numbers come after the highest that is in use, and from the lowest free one when those run out. */
  beginLayer(): void {
    this.#next = this.#highestUsed() + 1;
  }

  #highestUsed(): number {
    const { inodesPerGroup } = this.#superblock;
    for (let number = this.#groups.length - 1; number >= 0; number--) {
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
    const found = this.#firstFree(this.#next) ?? this.#firstFree(this.#superblock.fields.firstInode);
    if (found === undefined) {
      throw unsupported(`all ${this.#superblock.fields.inodesCount} inodes of the filesystem are in use; give it more with --vsize`);
    }
    this.#next = found + 1;
    this.mark(found, directory);
    return found;
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
    if (directory) group.usedDirectories++;
    group.unusedInodes = Math.min(group.unusedInodes, this.#superblock.inodesPerGroup - bit - 1);
  }

  /** Frees an inode and clears its record. */
  free(inode: number, directory: boolean): void {
    const { group, bit, bitmap } = this.#bitmapOf(inode);
    setBits(bitmap, bit, bit + 1, false);
    group.freeInodes++;
    if (directory) group.usedDirectories--;
    const { block, offset } = this.#place(inode);
    this.#blocks.change(block).fill(0, offset, offset + INODE_BYTES);
  }

  #bitmapOf(inode: number): { group: Group; bit: number; bitmap: Buffer } {
    const { inodesPerGroup } = this.#superblock;
    const number = Math.floor((inode - 1) / inodesPerGroup);
    const group = this.#groups[number];
    if (group.flags & GROUP_FLAG.inodeUninit) {
      const bitmap = new Uint8Array(BLOCK_BYTES);
      setBits(bitmap, inodesPerGroup, BLOCK_BYTES * 8, true);
      this.#blocks.create(group.inodeBitmap, bitmap);
      group.flags &= ~GROUP_FLAG.inodeUninit;
    }
    this.#changed.add(number);
    return { group, bit: (inode - 1) % inodesPerGroup, bitmap: this.#blocks.change(group.inodeBitmap) };
  }

  #place(inode: number): { block: number; offset: number } {
    const { inodesPerGroup } = this.#superblock;
    const index = (inode - 1) % inodesPerGroup;
    const perBlock = BLOCK_BYTES / INODE_BYTES;
    const table = this.#groups[Math.floor((inode - 1) / inodesPerGroup)].inodeTable;
    return { block: table + Math.floor(index / perBlock), offset: (index % perBlock) * INODE_BYTES };
  }

  /** The block that holds an inode's record. */
  blockOf(inode: number): number {
    return this.#place(inode).block;
  }

  #record(inode: number): Buffer {
    const { block, offset } = this.#place(inode);
    return this.#blocks.get(block).subarray(offset, offset + INODE_BYTES);
  }

  read(inode: number): Inode {
    return decodeInode(this.#record(inode));
  }

  /** The kind bits and permissions alone. */
  mode(inode: number): number {
    return this.#record(inode).readUInt16LE(0);
  }

  /** The attribute area of an inode's record. */
  xattrArea(inode: number): Uint8Array {
    const record = this.#record(inode);
    const { extraIsize } = decodeInode(record);
    if (extraIsize === EXTRA_ISIZE) return record.subarray(INODE_BYTES - XATTR_AREA_BYTES);
    if (parseInodeXattrs(record.subarray(128 + extraIsize), `inode ${inode}`).length === 0) return NO_XATTRS;
    throw unsupported(`inode ${inode} keeps attributes behind ${extraIsize} bytes of extra fields, expected ${EXTRA_ISIZE}`);
  }

  /** Writes an inode's record with its attribute area and checksum. */
  write(number: number, inode: Inode, xattrArea: Uint8Array): void {
    const record = this.#scratch.fill(0);
    encodeInode(inode, record);
    record.set(xattrArea, INODE_BYTES - XATTR_AREA_BYTES);
    if (this.#superblock.hasMetadataCsum) {
      const checksum = inodeChecksum(inodeSeed(this.#superblock.seed, number, inode.generation), record);
      record.writeUInt16LE(checksum & 0xffff, 0x7c);
      record.writeUInt16LE(checksum >>> 16, 0x82);
    }
    const { block, offset } = this.#place(number);
    this.#blocks.write(block, record, offset);
  }

  /** Ends a layer: brings the bitmaps' checksums up to date and returns the groups that changed. */
  settle(): number[] {
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
