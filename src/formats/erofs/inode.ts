import { corrupt } from "../../errors.ts";
import type { FileType, FilesystemInode } from "../../tree/filesystem-reader.ts";
import { compactInodeStruct, extendedInodeStruct, FORMAT_EXTENDED, xattrHeaderStruct } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";

/** An inode with what says where its data is. */
export interface ErofsInode extends FilesystemInode {
  readonly atime: undefined;
  readonly ctime: undefined;
  /** One of `DATA_LAYOUT`, or a number that is none of them. */
  readonly layout: number;
  /** First block, chunk format or device number. */
  readonly data: number;
  /** Bytes of the inode itself; its attributes follow. */
  readonly inodeBytes: number;
  readonly xattrBytes: number;
}

/** The kind bits of a mode. */
export const KIND_OF: Readonly<Record<Exclude<FileType, "unknown">, number>> = {
  file: FILE_KIND.file,
  directory: FILE_KIND.directory,
  symlink: FILE_KIND.symlink,
  character: FILE_KIND.character,
  block: FILE_KIND.block,
  fifo: FILE_KIND.fifo,
  socket: FILE_KIND.socket,
};
const TYPES = ["file", "directory", "symlink", "character", "block", "fifo", "socket"] as const;
const NANOSECONDS = 1_000_000_000;

export function isExtended(bytes: Uint8Array): boolean {
  return (bytes[0] & FORMAT_EXTENDED) !== 0;
}

/** Decodes a whole inode of either size. `epoch` is the build time, which is what compact inodes have. */
export function decodeInode(
  bytes: Uint8Array,
  number: number,
  epoch: { readonly seconds: number; readonly nanoseconds: number },
  where: string,
): ErofsInode {
  const extended = isExtended(bytes);
  const fields = extended ? decodeExtended(bytes) : decodeCompact(bytes, epoch);
  const { format, xattrCount, mode, uid, gid, size, links, mtime, data } = fields;
  if (format >>> 4 !== 0) throw corrupt(`${where} has format 0x${format.toString(16)}, expected less than 16`);
  if (mtime.nanoseconds >= NANOSECONDS) throw corrupt(`${where} has a time of ${mtime.nanoseconds} nanoseconds`);
  const type = TYPES.find((known) => KIND_OF[known] === (mode & FILE_KIND.mask)) ?? "unknown";
  const device = type === "character" || type === "block" ? decodeDevice(data) : { major: 0, minor: 0 };
  return {
    number,
    type,
    mode: mode & ~FILE_KIND.mask,
    uid,
    gid,
    size,
    links,
    mtime,
    atime: undefined,
    ctime: undefined,
    ...device,
    layout: (format >>> 1) & 7,
    data,
    inodeBytes: extended ? extendedInodeStruct.size : compactInodeStruct.size,
    xattrBytes: xattrCount === 0 ? 0 : xattrHeaderStruct.size + (xattrCount - 1) * 4,
  };
}

type Fields = Pick<ErofsInode, "mode" | "uid" | "gid" | "size" | "links" | "mtime" | "data"> & {
  readonly format: number;
  readonly xattrCount: number;
};

function decodeExtended(bytes: Uint8Array): Fields {
  const { mtimeSeconds, mtimeNanoseconds, ...fields } = extendedInodeStruct.decode(bytes);
  return { ...fields, mtime: { seconds: mtimeSeconds, nanoseconds: mtimeNanoseconds } };
}

function decodeCompact(bytes: Uint8Array, epoch: { readonly seconds: number; readonly nanoseconds: number }): Fields {
  const { mtimeOffset, ...fields } = compactInodeStruct.decode(bytes);
  return { ...fields, mtime: { seconds: epoch.seconds + mtimeOffset, nanoseconds: epoch.nanoseconds } };
}

/** A device number as an inode holds it: 12 bits for the major, 20 for the minor number. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

function decodeDevice(data: number): { major: number; minor: number } {
  return { major: (data >>> 8) & 0xfff, minor: (data & 0xff) | ((data >>> 12) & 0xfff00) };
}
