import { corrupt, unsupported } from "../errors.ts";
import type { ByteString, Entry, EntryType, Timespec } from "../tree/entry.ts";
import { cleanPath, quoted } from "../tree/path.ts";
import type { LongNames } from "./extended-headers.ts";
import type { TarHeader } from "./header.ts";
import { paxNumber, paxText, paxTime, paxXattrs, type PaxRecords } from "./pax.ts";

const MAX_ID = 2 ** 32 - 2; // the id after it means "no change" to Linux
const MAX_MAJOR = 2 ** 12 - 1;
const MAX_MINOR = 2 ** 20 - 1;
const SYMLINK_MODE = 0o777; // Linux has no other
const MAX_TARGET_BYTES = 4095; // Linux PATH_MAX without its NUL

/** A member of an archive and where it is in it. */
export interface TarEntry extends Entry {
  /** Offset of the member's own header block in the tar stream; extended headers come before it. */
  readonly headerOffset: number;
  /** Offset of the first stored byte of data in the tar stream. */
  readonly dataOffset: number;
  /** Bytes of data stored from there, without padding: the size, or less in a sparse file. */
  readonly storedBytes: number;
}

/** Where the data of a member is, in its file and in the archive. */
type Placement = Pick<TarEntry, "size" | "extents" | "headerOffset" | "dataOffset" | "storedBytes">;

/** What the headers of a member tell about it, before the place of its data is known. */
export type Member = Omit<TarEntry, keyof Placement>;

const TYPES: Readonly<Record<string, EntryType>> = {
  "\0": "file",
  "0": "file",
  "7": "file", // contiguous, which is a matter of allocation
  S: "file", // GNU sparse
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

const VENDOR_TYPES: Readonly<Record<string, string>> = {
  D: "a GNU incremental directory",
  M: "the continuation of a file of another volume",
  N: "an old GNU long name",
  V: "a GNU volume label",
};

function memberType(typeflag: string, name: ByteString): EntryType {
  const type = TYPES[typeflag];
  if (type !== undefined) return typeflag === "\0" && name.endsWith("/") ? "directory" : type;
  const meaning = VENDOR_TYPES[typeflag];
  throw unsupported(
    `member ${quoted(name)} has type ${quoted(typeflag)}${meaning === undefined ? "" : ` (${meaning})`}, which is not a part of a file tree`,
  );
}

function memberName(header: TarHeader, pax: PaxRecords, long: LongNames): ByteString {
  return paxText(pax, "GNU.sparse.name") ?? paxText(pax, "path") ?? long.path ?? header.name;
}

/** Joins a header block with the extended headers before it. */
export function parseMember(header: TarHeader, pax: PaxRecords, long: LongNames): Member {
  const name = memberName(header, pax, long);
  const type = memberType(header.typeflag, name);
  const mtime = paxTime(pax, "mtime") ?? wholeSeconds(header.mtime);
  return {
    path: cleanPath(name),
    type,
    mode: type === "symlink" ? SYMLINK_MODE : permissions(header.mode),
    uid: checkedId(paxNumber(pax, "uid") ?? header.uid, "uid"),
    gid: checkedId(paxNumber(pax, "gid") ?? header.gid, "gid"),
    mtime,
    atime: paxTime(pax, "atime") ?? (header.atime === undefined ? mtime : wholeSeconds(header.atime)),
    ctime: paxTime(pax, "ctime") ?? (header.ctime === undefined ? mtime : wholeSeconds(header.ctime)),
    link: linkOf(type, paxText(pax, "linkpath") ?? long.link ?? header.linkName, name),
    major: checkedDevice(header.major, MAX_MAJOR, "major"),
    minor: checkedDevice(header.minor, MAX_MINOR, "minor"),
    xattrs: paxXattrs(pax),
  };
}

/** A member as an entry. All fields are set in one place and order, so that a million of them share one shape. */
export function entryOf(member: Member, placement: Placement): TarEntry {
  const { path, type, mode, uid, gid, mtime, atime, ctime, link, major, minor, xattrs } = member;
  const { size, extents, headerOffset, dataOffset, storedBytes } = placement;
  return {
    path,
    type,
    mode,
    uid,
    gid,
    mtime,
    atime,
    ctime,
    size,
    link,
    major,
    minor,
    xattrs,
    extents,
    headerOffset,
    dataOffset,
    storedBytes,
  };
}

/**
 * How many bytes of data follow the headers of a member. Only files have data; the size of others is a hint of some
 * archivers, except that a PAX record makes a hard link bring data along.
 */
export function storedSize(header: TarHeader, pax: PaxRecords, type: EntryType): number {
  const recorded = paxNumber(pax, "size");
  if (type === "hardlink") return recorded ?? 0;
  if (type !== "file") return 0;
  const size = recorded ?? header.size;
  if (size < 0) throw corrupt(`size is ${size}`);
  return size;
}

function wholeSeconds(seconds: number): Timespec {
  return { seconds, nanoseconds: 0 };
}

function permissions(mode: number): number {
  if (mode < 0) throw corrupt(`mode is ${mode}, expected permission bits`);
  return mode % 0o10000; // archivers put the type bits of st_mode there too
}

function checkedId(id: number, field: string): number {
  if (id < 0 || id > MAX_ID) throw unsupported(`${field} is ${id}, Linux has 0 to ${MAX_ID}`);
  return id;
}

function checkedDevice(number: number, limit: number, field: string): number {
  if (number < 0 || number > limit) throw unsupported(`${field} device number is ${number}, Linux has 0 to ${limit}`);
  return number;
}

function linkOf(type: EntryType, target: ByteString, name: ByteString): ByteString {
  if (type !== "symlink" && type !== "hardlink") return "";
  if (target === "") throw corrupt(`${type} ${quoted(name)} has no target`);
  if (type === "hardlink") return cleanPath(target);
  if (target.includes("\0")) throw corrupt(`target ${quoted(target)} of symlink ${quoted(name)} has a NUL byte in it`);
  if (target.length > MAX_TARGET_BYTES) {
    throw unsupported(`target of symlink ${quoted(name)} is ${target.length} bytes long, Linux allows ${MAX_TARGET_BYTES}`);
  }
  return target;
}
