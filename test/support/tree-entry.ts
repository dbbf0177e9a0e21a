import type { Entry } from "../../src/tree/entry.ts";

const EPOCH = { seconds: 0, nanoseconds: 0 };

/** An entry with ordinary values: a directory when the path ends with a slash, else an empty file. */
export function treeEntry(path: string, fields: Partial<Entry> = {}): Entry {
  const isDirectory = path.endsWith("/");
  const mtime = fields.mtime ?? EPOCH;
  return {
    path: isDirectory ? path.slice(0, -1) : path,
    type: isDirectory ? "directory" : "file",
    mode: isDirectory ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    mtime,
    atime: mtime,
    ctime: mtime,
    size: 0,
    link: "",
    major: 0,
    minor: 0,
    xattrs: new Map(),
    extents: [],
    ...fields,
  };
}

export function symlinkEntry(path: string, link: string): Entry {
  return treeEntry(path, { type: "symlink", mode: 0o777, link });
}

export function hardlinkEntry(path: string, link: string): Entry {
  return treeEntry(path, { type: "hardlink", link });
}
