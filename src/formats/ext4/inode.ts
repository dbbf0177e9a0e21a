import type { ByteString, Timespec } from "../../tree/entry.ts";
import { EXTRA_ISIZE, INODE_FLAG, inodeStruct } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";

/** An inode's fields, joined from their halves. */
export interface Inode {
  /** Kind and permission bits. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  links: number;
  /** 512-byte sectors that belong to the inode, its extent and attribute blocks included. */
  sectors: number;
  flags: number;
  generation: number;
  atime: Timespec;
  mtime: Timespec;
  ctime: Timespec;
  /** Block of extended attributes, or 0. */
  xattrBlock: number;
  /** The low half of the version; holds the reference count of an inode that stores an attribute's value. */
  version: number;
  /** 60 bytes: extent tree root, short symlink target or device number. */
  block: Uint8Array;
  /** Size of the fields after the first 128 bytes; attributes follow. */
  extraIsize: number;
  /** Time of creation as it is stored; only kept. */
  createTime: number;
  createTimeExtra: number;
}

const { fields: AT, size: FIELD_BYTES } = inodeStruct;

/** Decodes a record. Field by field instead of through the table: it is done several times for each directory of a layer. */
export function decodeInode(record: Uint8Array): Inode {
  const padded = record.length >= FIELD_BYTES ? record : Buffer.concat([record, Buffer.alloc(FIELD_BYTES - record.length)]);
  const view = new DataView(padded.buffer, padded.byteOffset, padded.length);
  const extra = record.length > 128 ? view.getUint16(AT.extraIsize[0], true) : 0;
  const sectors = view.getUint32(AT.blocksLow[0], true) + view.getUint16(AT.blocksHigh[0], true) * 2 ** 32;
  const flags = view.getUint32(AT.flags[0], true);
  return {
    mode: view.getUint16(AT.mode[0], true),
    uid: view.getUint16(AT.uidLow[0], true) + view.getUint16(AT.uidHigh[0], true) * 65536,
    gid: view.getUint16(AT.gidLow[0], true) + view.getUint16(AT.gidHigh[0], true) * 65536,
    size: view.getUint32(AT.sizeLow[0], true) + view.getUint32(AT.sizeHigh[0], true) * 2 ** 32,
    links: view.getUint16(AT.links[0], true),
    sectors: flags & INODE_FLAG.hugeFile ? sectors * 8 : sectors,
    flags,
    generation: view.getUint32(AT.generation[0], true),
    atime: decodeTime(view, AT.atime[0], extra >= 16 ? AT.atimeExtra[0] : 0),
    mtime: decodeTime(view, AT.mtime[0], extra >= 12 ? AT.mtimeExtra[0] : 0),
    ctime: decodeTime(view, AT.ctime[0], extra >= 8 ? AT.ctimeExtra[0] : 0),
    xattrBlock: view.getUint32(AT.fileAclLow[0], true) + view.getUint16(AT.fileAclHigh[0], true) * 2 ** 32,
    version: view.getUint32(AT.versionLow[0], true),
    block: Uint8Array.from(padded.subarray(AT.block[0], AT.block[0] + AT.block[1].bytes)),
    extraIsize: extra,
    createTime: extra >= 20 ? view.getUint32(AT.createTime[0], true) : 0,
    createTimeExtra: extra >= 24 ? view.getUint32(AT.createTimeExtra[0], true) : 0,
  };
}

/** Writes the first 160 bytes of a 256-byte record; what belongs to no field stays as it is, checksums become zero. */
export function encodeInode(inode: Inode, view: DataView): void {
  view.setUint16(AT.mode[0], inode.mode, true);
  view.setUint16(AT.uidLow[0], inode.uid, true);
  view.setUint16(AT.uidHigh[0], inode.uid >>> 16, true);
  view.setUint16(AT.gidLow[0], inode.gid, true);
  view.setUint16(AT.gidHigh[0], inode.gid >>> 16, true);
  view.setUint32(AT.sizeLow[0], inode.size % 2 ** 32, true);
  view.setUint32(AT.sizeHigh[0], Math.floor(inode.size / 2 ** 32), true);
  view.setUint16(AT.links[0], inode.links, true);
  view.setUint32(AT.blocksLow[0], inode.sectors % 2 ** 32, true);
  view.setUint16(AT.blocksHigh[0], Math.floor(inode.sectors / 2 ** 32), true);
  view.setUint32(AT.flags[0], inode.flags & ~INODE_FLAG.hugeFile, true);
  view.setUint32(AT.generation[0], inode.generation, true);
  view.setUint32(AT.versionLow[0], inode.version, true);
  view.setUint32(AT.fileAclLow[0], inode.xattrBlock % 2 ** 32, true);
  view.setUint16(AT.fileAclHigh[0], Math.floor(inode.xattrBlock / 2 ** 32), true);
  view.setUint16(AT.extraIsize[0], EXTRA_ISIZE, true);
  encodeTime(inode.atime, view, AT.atime[0], AT.atimeExtra[0]);
  encodeTime(inode.mtime, view, AT.mtime[0], AT.mtimeExtra[0]);
  encodeTime(inode.ctime, view, AT.ctime[0], AT.ctimeExtra[0]);
  view.setUint32(AT.createTime[0], inode.createTime, true);
  view.setUint32(AT.createTimeExtra[0], inode.createTimeExtra, true);
  view.setUint16(AT.checksumLow[0], 0, true);
  view.setUint16(AT.checksumHigh[0], 0, true);
  for (let at = 0; at < AT.block[1].bytes; at++) view.setUint8(AT.block[0] + at, inode.block[at]);
}

const FIRST_SECOND = -(2 ** 31);
const LAST_SECOND = FIRST_SECOND + 2 ** 34 - 1;

/** The time as the filesystem keeps it: outside of 1901–2446 it becomes the nearest end, as in the kernel. */
export function clampTime(time: Timespec): Timespec {
  if (time.seconds < FIRST_SECOND) return { seconds: FIRST_SECOND, nanoseconds: 0 };
  if (time.seconds > LAST_SECOND) return { seconds: LAST_SECOND, nanoseconds: 0 };
  return time;
}

/** The low two bits of the extra word extend the seconds beyond 32 bits, the others are nanoseconds. */
function encodeTime(time: Timespec, view: DataView, at: number, extraAt: number): void {
  const { seconds, nanoseconds } = clampTime(time);
  const epoch = Math.floor((seconds - FIRST_SECOND) / 2 ** 32);
  view.setUint32(at, seconds, true);
  view.setUint32(extraAt, (nanoseconds << 2) | epoch, true);
}

/** `extraAt` is 0 where the record has no extra word. */
function decodeTime(view: DataView, at: number, extraAt: number): Timespec {
  const extra = extraAt === 0 ? 0 : view.getUint32(extraAt, true);
  return { seconds: view.getInt32(at, true) + (extra & 3) * 2 ** 32, nanoseconds: extra >>> 2 };
}

/** Device numbers: the old 16-bit form where both parts are below 256, else the 32-bit form in the second word. */
export function encodeDevice(major: number, minor: number): Uint8Array {
  const block = Buffer.alloc(60);
  if (major < 256 && minor < 256) block.writeUInt16LE((major << 8) | minor, 0);
  else block.writeUInt32LE(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0, 4);
  return block;
}

export function decodeDevice(block: Uint8Array): { major: number; minor: number } {
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  const old = view.getUint32(0, true);
  if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff };
  const wide = view.getUint32(4, true);
  return { major: (wide >>> 8) & 0xfff, minor: (wide & 0xff) | ((wide >>> 12) & 0xfff00) };
}

export function isKind(inode: { readonly mode: number }, kind: number): boolean {
  return (inode.mode & FILE_KIND.mask) === kind;
}

/** Short symlink targets live in the inode itself. */
export function isFastSymlink(inode: Inode): boolean {
  return (
    isKind(inode, FILE_KIND.symlink) && inode.size < 60 && !(inode.flags & (INODE_FLAG.extents | INODE_FLAG.inlineData)) && inode.size > 0
  );
}

export function fastSymlinkTarget(inode: Inode): ByteString {
  return Buffer.from(inode.block).toString("latin1", 0, inode.size);
}
