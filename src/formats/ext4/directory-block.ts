import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";

/** One name in a directory. */
export interface DirectoryEntry {
  readonly name: ByteString;
  readonly inode: number;
  /** As in `DIRENT_TYPE`; 0 where the filesystem does not record types. */
  readonly type: number;
}

/** Bytes that the checksum tail takes at the end of a leaf. */
export const LEAF_TAIL_BYTES = 12;
const TAIL_TYPE = 0xde;

/** Bytes that an entry takes: 8 of header and the name, rounded up to 4. */
export function entryBytes(nameLength: number): number {
  return (8 + nameLength + 3) & ~3;
}

/** The entries of one directory block. Index nodes look like blocks with one unused entry, so they give none. */
export function readDirectoryBlock(bytes: Uint8Array, where: string, visit: (entry: DirectoryEntry, offset: number) => void): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length;) {
    const recordBytes = at + 8 <= bytes.length ? recordLength(view.getUint16(at + 4, true), bytes.length) : 0;
    const nameLength = recordBytes === 0 ? 0 : bytes[at + 6];
    if (recordBytes < 8 || recordBytes % 4 !== 0 || at + recordBytes > bytes.length || 8 + nameLength > recordBytes) {
      throw corrupt(`${where}: directory entry at ${at} has record length ${recordBytes} and name length ${nameLength}`);
    }
    const inode = view.getUint32(at, true);
    if (inode !== 0) {
      if (nameLength === 0) throw corrupt(`${where}: directory entry at ${at} has no name`);
      const name = Buffer.from(bytes.buffer, bytes.byteOffset + at + 8, nameLength).toString("latin1");
      if (name.includes("/") || name.includes("\0")) throw corrupt(`${where}: directory entry at ${at} has a name with "/" or NUL`);
      visit({ name, inode, type: bytes[at + 7] }, at);
    }
    at += recordBytes;
  }
}

/** Record lengths of 64 KiB blocks do not fit 16 bits: 0 and 65535 stand for the whole block. */
export function recordLength(stored: number, blockBytes: number): number {
  return blockBytes === 65536 && (stored === 0 || stored === 65535) ? blockBytes : stored;
}

/** Writes the entries as one leaf; the last entry takes all room that is left. `tail` leaves room for a checksum. */
export function encodeLeaf(entries: readonly DirectoryEntry[], blockBytes: number, tail: boolean): Uint8Array {
  const bytes = Buffer.alloc(blockBytes);
  const end = blockBytes - (tail ? LEAF_TAIL_BYTES : 0);
  let at = 0;
  let last = -1;
  for (const entry of entries) {
    last = at;
    at += putEntry(bytes, at, entry);
    if (at > end) throw new RangeError(`entries of ${at} bytes do not fit a leaf of ${end}`);
  }
  if (last < 0) bytes.writeUInt16LE(end, 4);
  else bytes.writeUInt16LE(end - last, last + 4);
  if (tail) {
    bytes.writeUInt16LE(LEAF_TAIL_BYTES, end + 4);
    bytes[end + 7] = TAIL_TYPE;
  }
  return bytes;
}

/** Writes one entry at its smallest length and returns that length. */
export function putEntry(bytes: Uint8Array, at: number, entry: DirectoryEntry): number {
  const length = entryBytes(entry.name.length);
  if (at + length > bytes.length) throw new RangeError(`directory entry at ${at} of ${length} bytes passes the block's end`);
  const { name, inode, type } = entry;
  bytes[at] = inode;
  bytes[at + 1] = inode >>> 8;
  bytes[at + 2] = inode >>> 16;
  bytes[at + 3] = inode >>> 24;
  bytes[at + 4] = length;
  bytes[at + 5] = length >>> 8;
  bytes[at + 6] = name.length;
  bytes[at + 7] = type;
  // Names are too short for a call into native code to pay.
  for (let index = 0; index < name.length; index++) bytes[at + 8 + index] = name.charCodeAt(index);
  return length;
}
