import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import type { ByteString, EntryType, Timespec } from "./entry.ts";
import { quoted } from "./path.ts";

/** What an inode is; `unknown` where its mode says nothing that Linux knows. */
export type FileType = Exclude<EntryType, "hardlink"> | "socket" | "unknown";

/** An inode of whatever filesystem. */
export interface FilesystemInode {
  readonly number: number;
  readonly type: FileType;
  /** Permission bits with setuid, setgid and sticky: 0–0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Size in bytes as it is stored, also of directories and symlinks. */
  readonly size: number;
  readonly links: number;
  readonly mtime: Timespec;
  /** Undefined where the filesystem keeps none. */
  readonly atime: Timespec | undefined;
  readonly ctime: Timespec | undefined;
  /** Device number; 0 for everything but character and block devices. */
  readonly major: number;
  readonly minor: number;
}

/** A stretch of a file that lies in one piece on the device; what lies between stretches reads as zeros. All in bytes. */
export interface DeviceExtent {
  readonly offset: number;
  readonly length: number;
  readonly deviceOffset: number;
}

export interface NamedInode {
  readonly name: ByteString;
  readonly inode: number;
}

/** Reads a filesystem by inode numbers. Throws `CORRUPT` for what contradicts the format, `UNSUPPORTED` for what is not implemented. */
export interface FilesystemReader {
  readonly name: string;
  /** Number of the root directory. */
  readonly root: number;
  inode(number: number): Promise<FilesystemInode>;
  /** All names in a directory but `.` and `..`. */
  list(number: number): Promise<readonly NamedInode[]>;
  linkTarget(number: number): Promise<ByteString>;
  /** Extended attributes by full name, sorted; values as system calls show them. */
  xattrs(number: number): Promise<ReadonlyMap<ByteString, Uint8Array>>;
  /** A regular file's content. Closing it leaves the filesystem open. */
  file(number: number): Promise<ByteSource>;
  /** Where a regular file's content is on the device, ascending and disjoint, within its size. */
  extents(number: number): Promise<readonly DeviceExtent[]>;
}

const MAX_SYMLINKS = 40; // as the kernel

/**
 * The inode at a path, following symlinks, also the last one; absolute targets and `..` stay inside of the filesystem.
 * Throws `NOT_FOUND` naming the part that does not exist.
 */
export async function lookupPath(reader: FilesystemReader, path: ByteString): Promise<number> {
  const pending = path.split("/").toReversed();
  const above: number[] = [reader.root];
  let symlinks = 0;
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      if (above.length > 1) above.pop();
      continue;
    }
    const directory = above.at(-1)!;
    const { type } = await reader.inode(directory);
    const entry = type === "directory" ? (await reader.list(directory)).find((child) => child.name === name) : undefined;
    if (!entry) throw new LazyError("NOT_FOUND", `${reader.name}: ${quoted(path)}: there is no ${quoted(name)}`);
    if ((await reader.inode(entry.inode)).type !== "symlink") {
      above.push(entry.inode);
      continue;
    }
    if (++symlinks > MAX_SYMLINKS) throw corrupt(`${reader.name}: ${quoted(path)}: more than ${MAX_SYMLINKS} symlinks to follow`);
    const target = await reader.linkTarget(entry.inode);
    if (target.startsWith("/")) above.length = 1;
    pending.push(...target.split("/").toReversed());
  }
  return above.at(-1)!;
}
