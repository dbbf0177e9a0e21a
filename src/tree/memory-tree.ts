import { corrupt } from "../errors.ts";
import type { ByteString, Entry, EntryType, Timespec } from "./entry.ts";
import type { Change } from "./layer-changes.ts";
import { baseName, parentPath, quoted } from "./path.ts";
import { findCleared, findNode, findRemoved, resolveDirectory, type TreeView } from "./resolve.ts";
import { keptXattrs } from "./xattr.ts";

/**
 * What a path leads to: an entry's fields, with the attributes that a filesystem stores for its type. Hard links share one
 * object, so groups of them are found by identity.
 */
export interface TreeInode<C> extends Omit<Entry, "path" | "type"> {
  readonly type: Exclude<EntryType, "hardlink">;
  /** What stands for the content of a file; undefined for everything else. */
  readonly content: C | undefined;
}

type Inode<C> = { -readonly [K in keyof TreeInode<C>]: TreeInode<C>[K] } & {
  /** Only directories have them. */
  readonly children: Map<ByteString, Inode<C>> | undefined;
};

const EPOCH: Timespec = { seconds: 0, nanoseconds: 0 };

/**
 * A file tree in memory, built from the changes of one layer after the other. It is plain on purpose: the filesystem
 * writers and `verify` are measured against it.
 */
export class MemoryTree<E extends Entry, C> {
  readonly #contentOf: (entry: E) => C;
  readonly #root: Inode<C> = impliedDirectory();
  readonly #view: TreeView<Inode<C>> = {
    root: this.#root,
    lookup: (directory, name) => directory.children?.get(name),
    kind: (inode) => (inode.type === "directory" || inode.type === "symlink" ? inode.type : "other"),
    linkTarget: (inode) => inode.link,
  };

  /** @param contentOf what to keep of a file's content: a digest, the bytes, where they are */
  constructor(contentOf: (entry: E) => C) {
    this.#contentOf = contentOf;
  }

  /** Throws `CORRUPT` for entries that fit into no tree and `UNSUPPORTED` for xattrs that Linux does not have. */
  apply(changes: Iterable<Change<E>>): void {
    for (const change of changes) {
      if (change.kind === "put") this.#put(change.entry);
      else if (change.kind === "clear") findCleared(this.#view, change)?.children?.clear();
      else this.#remove(change);
    }
  }

  /** The inode at a path without symlinks on the way; one at the end is not followed. */
  get(path: ByteString): TreeInode<C> | undefined {
    let inode: Inode<C> | undefined = this.#root;
    if (path !== "") for (const name of path.split("/")) inode = inode?.children?.get(name);
    return inode;
  }

  /** All paths, each directory before what is in it, names in byte order. The first is the root, `""`. */
  *list(): Generator<[path: ByteString, inode: TreeInode<C>]> {
    const pending: [ByteString, Inode<C>][] = [["", this.#root]];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const [path, inode] = next;
      yield [path, inode];
      const prefix = path === "" ? "" : `${path}/`;
      const children = [...(inode.children ?? [])].sort(([a], [b]) => (a < b ? 1 : -1)); // the last is popped first
      for (const [name, child] of children) pending.push([prefix + name, child]);
    }
  }

  #remove(change: Change<E> & { kind: "remove" }): void {
    const found = findRemoved(this.#view, change);
    found?.parent.children?.delete(found.name);
  }

  #put(entry: E): void {
    if (entry.path === "") return this.#putRoot(entry);
    const target = entry.type === "hardlink" ? this.#linkedInode(entry) : undefined;
    const parent = this.#makeDirectories(parentPath(entry.path));
    const name = baseName(entry.path);
    const existing = parent.get(name);
    if (target !== undefined) {
      parent.set(name, target);
    } else if (entry.type === "directory" && existing?.type === "directory") {
      Object.assign(existing, this.#inodeFields(entry));
    } else {
      parent.set(name, { ...this.#inodeFields(entry), children: entry.type === "directory" ? new Map() : undefined });
    }
  }

  #putRoot(entry: E): void {
    if (entry.type !== "directory") throw corrupt(`layer entry for the root is a ${entry.type}, expected a directory`);
    Object.assign(this.#root, this.#inodeFields(entry));
  }

  #linkedInode(entry: E): Inode<C> {
    const target = findNode(this.#view, entry.link)?.node;
    if (target === undefined) throw corrupt(`hard link ${quoted(entry.path)}: its target ${quoted(entry.link)} does not exist`);
    if (target.type === "directory") throw corrupt(`hard link ${quoted(entry.path)}: its target ${quoted(entry.link)} is a directory`);
    return target;
  }

  #makeDirectories(path: ByteString): Map<ByteString, Inode<C>> {
    const { directory, missing } = resolveDirectory(this.#view, path);
    let children = directory.children!;
    for (const name of missing) {
      const made: Inode<C> = impliedDirectory();
      children.set(name, made);
      children = made.children!;
    }
    return children;
  }

  #inodeFields(entry: E): TreeInode<C> {
    const { type, mode, uid, gid, mtime, atime, ctime, size, link, major, minor, extents } = entry;
    if (type === "hardlink") throw corrupt(`hard link ${quoted(entry.path)} has no inode of its own`);
    const xattrs = keptXattrs(type, entry.xattrs);
    const content = type === "file" ? this.#contentOf(entry) : undefined;
    return { type, mode, uid, gid, mtime, atime, ctime, size, link, major, minor, xattrs, extents, content };
  }
}

/** A directory that no layer has an entry for. */
function impliedDirectory<C>(): Inode<C> {
  return {
    type: "directory",
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: EPOCH,
    atime: EPOCH,
    ctime: EPOCH,
    size: 0,
    link: "",
    major: 0,
    minor: 0,
    xattrs: new Map(),
    extents: [],
    content: undefined,
    children: new Map(),
  };
}
