/**
 * A byte string: a JavaScript string in which every character is one byte (0–255).
 * Names in archives and filesystems are bytes, not text; this keeps them exact, comparable and cheap.
 */
export type ByteString = string;

export interface Timespec {
  /** Seconds since 1970, negative before. */
  readonly seconds: number;
  /** 0–999,999,999, always counted forward from `seconds`. */
  readonly nanoseconds: number;
}

export type EntryType = "file" | "directory" | "symlink" | "hardlink" | "character" | "block" | "fifo";

/** A stretch of a file that holds data; what lies between extents is a hole. */
export interface DataExtent {
  /** Offset in the file, in bytes. */
  readonly offset: number;
  /** Length in bytes, above zero. */
  readonly length: number;
}

/** One member of a layer, as its archive states it. */
export interface Entry {
  /** Cleaned path relative to the root: no leading or trailing slash, no empty, `.` or `..` element; `""` is the root. */
  readonly path: ByteString;
  readonly type: EntryType;
  /** Permission bits with setuid, setgid and sticky: 0–0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Timespec;
  /** Access time; equal to `mtime` where the archive has none. */
  readonly atime: Timespec;
  /** Change time; equal to `mtime` where the archive has none. */
  readonly ctime: Timespec;
  /** Size of a regular file in bytes, holes included; 0 for everything else. */
  readonly size: number;
  /** Symlink: the target, verbatim. Hard link: the cleaned path of the file linked to. Else "". */
  readonly link: ByteString;
  /** Device number; 0 for everything but character and block devices. */
  readonly major: number;
  readonly minor: number;
  /** Extended attributes by full name (`user.a`), sorted by name. */
  readonly xattrs: ReadonlyMap<ByteString, Uint8Array>;
  /** Where a regular file has data, ascending and disjoint. A file without holes has one extent (none if empty). */
  readonly extents: readonly DataExtent[];
}
