import { corrupt } from "../../errors.ts";

/** A run of a file's blocks on the device. */
export interface Extent {
  /** First block within the file. */
  readonly fileBlock: number;
  readonly blocks: number;
  /** First block on the device. */
  readonly block: number;
  /** Allocated but never written: reads as zeros. */
  readonly unwritten: boolean;
}

/** A child of an inner node. */
export interface ExtentIndex {
  readonly fileBlock: number;
  readonly block: number;
}

export interface ExtentNode {
  /** 0: the entries are extents. */
  readonly depth: number;
  readonly extents: readonly Extent[];
  readonly children: readonly ExtentIndex[];
}

const MAGIC = 0xf30a;
const HEADER_BYTES = 12;
const ENTRY_BYTES = 12;
const MAX_DEPTH = 5;
/** The longest initialised extent; longer lengths mean unwritten ones. */
export const MAX_EXTENT_BLOCKS = 32768;
/** Extents that fit the 60 bytes inside of an inode: (60 - 12) / 12. */
export const INLINE_EXTENTS = 4;

/** Extents that fit a block: the checksum's four bytes always stay free. */
export function extentsPerBlock(blockBytes: number): number {
  return Math.floor((blockBytes - HEADER_BYTES) / ENTRY_BYTES);
}

/** Where a block keeps its checksum: behind the last entry that fits. */
export function extentTailOffset(blockBytes: number): number {
  return HEADER_BYTES + extentsPerBlock(blockBytes) * ENTRY_BYTES;
}

export function parseExtentNode(bytes: Uint8Array, where: string): ExtentNode {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const magic = view.getUint16(0, true);
  const entries = view.getUint16(2, true);
  const depth = view.getUint16(6, true);
  if (magic !== MAGIC) throw corrupt(`${where}: extent node has magic 0x${magic.toString(16)}, expected 0xf30a`);
  if (depth > MAX_DEPTH || HEADER_BYTES + entries * ENTRY_BYTES > bytes.length) {
    throw corrupt(`${where}: extent node of depth ${depth} with ${entries} entries in ${bytes.length} bytes`);
  }
  const extents: Extent[] = [];
  const children: ExtentIndex[] = [];
  let next = 0;
  for (let index = 0; index < entries; index++) {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    const fileBlock = view.getUint32(at, true);
    if (fileBlock < next) throw corrupt(`${where}: extent ${index} starts at file block ${fileBlock}, expected at least ${next}`);
    if (depth > 0) {
      children.push({ fileBlock, block: view.getUint32(at + 4, true) + view.getUint16(at + 8, true) * 2 ** 32 });
      next = fileBlock + 1;
      continue;
    }
    const stored = view.getUint16(at + 4, true);
    const unwritten = stored > MAX_EXTENT_BLOCKS;
    const blocks = unwritten ? stored - MAX_EXTENT_BLOCKS : stored;
    if (blocks === 0) throw corrupt(`${where}: extent ${index} is empty`);
    extents.push({ fileBlock, blocks, block: view.getUint32(at + 8, true) + view.getUint16(at + 6, true) * 2 ** 32, unwritten });
    next = fileBlock + blocks;
  }
  return { depth, extents, children };
}

/** Byte by byte: a `DataView` of an array as small as a root would cost more than all that is written through it. */
function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  putU16(bytes, at, value);
  putU16(bytes, at + 2, value >>> 16);
}

function encodeHeader(bytes: Uint8Array, entries: number, capacity: number, depth: number): void {
  putU16(bytes, 0, MAGIC);
  putU16(bytes, 2, entries);
  putU16(bytes, 4, capacity);
  putU16(bytes, 6, depth);
}

/** A leaf of up to `capacity` extents, in `size` bytes. */
export function encodeExtentLeaf(extents: readonly Extent[], size: number, capacity: number): Uint8Array {
  const bytes = new Uint8Array(size);
  encodeHeader(bytes, extents.length, capacity, 0);
  for (let index = 0; index < extents.length; index++) {
    const { fileBlock, blocks, block, unwritten } = extents[index];
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    putU32(bytes, at, fileBlock);
    putU16(bytes, at + 4, unwritten ? blocks + MAX_EXTENT_BLOCKS : blocks);
    putU16(bytes, at + 6, Math.floor(block / 2 ** 32));
    putU32(bytes, at + 8, block);
  }
  return bytes;
}

/** What an extent tree's root takes of an inode. */
export const ROOT_BYTES = 60;
/** The root of no extents. Roots are never changed in place, so that all new inodes share it. */
export const NO_EXTENTS: Uint8Array = encodeExtentLeaf([], ROOT_BYTES, INLINE_EXTENTS);

/** An inner node of up to `capacity` children, in `size` bytes. */
export function encodeExtentIndex(children: readonly ExtentIndex[], depth: number, size: number, capacity: number): Uint8Array {
  const bytes = new Uint8Array(size);
  encodeHeader(bytes, children.length, capacity, depth);
  for (const [index, child] of children.entries()) {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    putU32(bytes, at, child.fileBlock);
    putU32(bytes, at + 4, child.block);
    putU16(bytes, at + 8, Math.floor(child.block / 2 ** 32));
  }
  return bytes;
}
