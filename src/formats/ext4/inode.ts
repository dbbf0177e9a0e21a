import type { ByteString, Timespec } from "../../tree/entry.ts";
import { EXTRA_ISIZE, FILE_KIND, INODE_FLAG, inodeStruct } from "./layout.ts";

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

export function decodeInode(record: Uint8Array): Inode {
  const padded = record.length >= inodeStruct.size ? record : Buffer.concat([record, Buffer.alloc(inodeStruct.size - record.length)]);
  const fields = inodeStruct.decode(padded);
  const extra = record.length > 128 ? fields.extraIsize : 0;
  const sectors = fields.blocksLow + fields.blocksHigh * 2 ** 32;
  return {
    mode: fields.mode,
    uid: fields.uidLow + fields.uidHigh * 65536,
    gid: fields.gidLow + fields.gidHigh * 65536,
    size: fields.sizeLow + fields.sizeHigh * 2 ** 32,
    links: fields.links,
    sectors: fields.flags & INODE_FLAG.hugeFile ? sectors * 8 : sectors,
    flags: fields.flags,
    generation: fields.generation,
    atime: decodeTime(fields.atime, extra >= 16 ? fields.atimeExtra : 0),
    mtime: decodeTime(fields.mtime, extra >= 12 ? fields.mtimeExtra : 0),
    ctime: decodeTime(fields.ctime, extra >= 8 ? fields.ctimeExtra : 0),
    xattrBlock: fields.fileAclLow + fields.fileAclHigh * 2 ** 32,
    version: fields.versionLow,
    block: fields.block,
    extraIsize: extra,
    createTime: extra >= 20 ? fields.createTime : 0,
    createTimeExtra: extra >= 24 ? fields.createTimeExtra : 0,
  };
}

/** The first 160 bytes of a 256-byte record; checksums are left zero. */
export function encodeInode(inode: Inode, record: Uint8Array = new Uint8Array(inodeStruct.size)): Uint8Array {
  const [atime, mtime, ctime] = [encodeTime(inode.atime), encodeTime(inode.mtime), encodeTime(inode.ctime)];
  inodeStruct.encodeInto(record, {
    mode: inode.mode,
    uidLow: inode.uid & 0xffff,
    uidHigh: inode.uid >>> 16,
    gidLow: inode.gid & 0xffff,
    gidHigh: inode.gid >>> 16,
    sizeLow: inode.size % 2 ** 32,
    sizeHigh: Math.floor(inode.size / 2 ** 32),
    links: inode.links,
    blocksLow: inode.sectors % 2 ** 32,
    blocksHigh: Math.floor(inode.sectors / 2 ** 32),
    flags: inode.flags & ~INODE_FLAG.hugeFile,
    generation: inode.generation,
    versionLow: inode.version,
    block: inode.block,
    fileAclLow: inode.xattrBlock % 2 ** 32,
    fileAclHigh: Math.floor(inode.xattrBlock / 2 ** 32),
    extraIsize: EXTRA_ISIZE,
    atime: atime.low,
    atimeExtra: atime.extra,
    mtime: mtime.low,
    mtimeExtra: mtime.extra,
    ctime: ctime.low,
    ctimeExtra: ctime.extra,
    createTime: inode.createTime,
    createTimeExtra: inode.createTimeExtra,
  });
  return record;
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
function encodeTime(time: Timespec): { low: number; extra: number } {
  const { seconds, nanoseconds } = clampTime(time);
  const epoch = Math.floor((seconds - FIRST_SECOND) / 2 ** 32);
  return { low: seconds >>> 0, extra: ((nanoseconds << 2) | epoch) >>> 0 };
}

function decodeTime(low: number, extra: number): Timespec {
  return { seconds: (low | 0) + (extra & 3) * 2 ** 32, nanoseconds: extra >>> 2 };
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
