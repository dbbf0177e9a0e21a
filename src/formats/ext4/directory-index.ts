import { corrupt, unsupported } from "../../errors.ts";
import { indexNodeChecksum } from "./checksum.ts";
import { putEntry } from "./directory-block.ts";

/** A leaf as the index of a hashed directory names it. */
export interface IndexEntry {
  /** The lowest hash in the leaf; its lowest bit says that the leaf before ends with the same hash. */
  readonly hash: number;
  readonly fileBlock: number;
}

/** The index of a hashed directory: its leaves in hash order, and the blocks of its inner nodes. */
export interface DirectoryIndex {
  readonly hashVersion: number;
  readonly entries: readonly IndexEntry[];
  readonly nodeBlocks: readonly number[];
}

const ROOT_COUNT_OFFSET = 32; // "." and ".." take 12 bytes each, the root's header 8
const NODE_COUNT_OFFSET = 8; // one unused directory entry
const ENTRY_BYTES = 8;
const TAIL_BYTES = 8;
const ROOT_HEADER_BYTES = 8;

function limitAt(countOffset: number, blockBytes: number, checksum: boolean): number {
  return Math.floor((blockBytes - countOffset - (checksum ? TAIL_BYTES : 0)) / ENTRY_BYTES);
}

/** Reads a root and its inner nodes. `block` gives a block of the directory by its number within it. */
export function parseDirectoryIndex(block: (fileBlock: number) => Uint8Array, where: string): DirectoryIndex {
  const root = Buffer.from(block(0));
  const hashVersion = root[28];
  const levels = root[30];
  if (root[29] !== ROOT_HEADER_BYTES || levels > 1) throw unsupported(`${where}: directory index with ${levels} levels`);
  const top = parseEntries(root, ROOT_COUNT_OFFSET, where);
  if (levels === 0) return { hashVersion, entries: top, nodeBlocks: [] };
  const entries = top.flatMap((child) => {
    const [first, ...rest] = parseEntries(Buffer.from(block(child.fileBlock)), NODE_COUNT_OFFSET, where);
    return [{ hash: child.hash, fileBlock: first.fileBlock }, ...rest];
  });
  return { hashVersion, entries, nodeBlocks: top.map((child) => child.fileBlock) };
}

function parseEntries(bytes: Buffer, countOffset: number, where: string): IndexEntry[] {
  const limit = bytes.readUInt16LE(countOffset);
  const count = bytes.readUInt16LE(countOffset + 2);
  if (count === 0 || count > limit || countOffset + count * ENTRY_BYTES > bytes.length) {
    throw corrupt(`${where}: directory index counts ${count} of ${limit} entries`);
  }
  return Array.from({ length: count }, (_, index) => ({
    hash: index === 0 ? 0 : bytes.readUInt32LE(countOffset + index * ENTRY_BYTES),
    fileBlock: bytes.readUInt32LE(countOffset + index * ENTRY_BYTES + 4) & 0x0fffffff,
  }));
}

/** How many inner nodes an index of `leaves` leaves needs: none while they fit the root. */
export function nodesNeeded(leaves: number, blockBytes: number, checksum: boolean): number {
  if (leaves <= limitAt(ROOT_COUNT_OFFSET, blockBytes, checksum)) return 0;
  const nodes = Math.ceil(leaves / limitAt(NODE_COUNT_OFFSET, blockBytes, checksum));
  if (nodes > limitAt(ROOT_COUNT_OFFSET, blockBytes, checksum))
    throw unsupported(`a directory of ${leaves} blocks is too large for two index levels`);
  return nodes;
}

/** Writes an index: the root first, then its inner nodes, each with the block of the directory where it goes. */
export function encodeDirectoryIndex(
  index: DirectoryIndex,
  directory: { readonly inode: number; readonly parent: number },
  blockBytes: number,
  seed: number | undefined,
): { fileBlock: number; bytes: Uint8Array }[] {
  const { entries, nodeBlocks } = index;
  const root = Buffer.alloc(blockBytes);
  putEntry(root, 0, { name: ".", inode: directory.inode, type: 2 });
  putEntry(root, 12, { name: "..", inode: directory.parent, type: 2 });
  root.writeUInt16LE(blockBytes - 12, 16);
  root[28] = index.hashVersion;
  root[29] = ROOT_HEADER_BYTES;
  root[30] = nodeBlocks.length > 0 ? 1 : 0;
  if (nodeBlocks.length === 0) {
    encodeEntries(root, ROOT_COUNT_OFFSET, entries, seed);
    return [{ fileBlock: 0, bytes: root }];
  }
  const firstOf = (node: number): number => Math.floor((node * entries.length) / nodeBlocks.length);
  const nodes = nodeBlocks.map((fileBlock, number) => {
    const bytes = Buffer.alloc(blockBytes);
    bytes.writeUInt16LE(blockBytes, 4);
    const own = entries.slice(firstOf(number), firstOf(number + 1));
    encodeEntries(bytes, NODE_COUNT_OFFSET, own, seed);
    return { fileBlock, bytes, hash: own[0]?.hash ?? 0 };
  });
  encodeEntries(root, ROOT_COUNT_OFFSET, nodes, seed);
  return [{ fileBlock: 0, bytes: root }, ...nodes];
}

function encodeEntries(bytes: Buffer, countOffset: number, entries: readonly IndexEntry[], seed: number | undefined): void {
  const limit = limitAt(countOffset, bytes.length, seed !== undefined);
  for (const [index, entry] of entries.entries()) {
    if (index > 0) bytes.writeUInt32LE(entry.hash, countOffset + index * ENTRY_BYTES);
    bytes.writeUInt32LE(entry.fileBlock, countOffset + index * ENTRY_BYTES + 4);
  }
  bytes.writeUInt16LE(limit, countOffset);
  bytes.writeUInt16LE(entries.length, countOffset + 2);
  if (seed === undefined) return;
  bytes.writeUInt32LE(indexNodeChecksum(seed, bytes, countOffset, entries.length, limit), countOffset + limit * ENTRY_BYTES + 4);
}
