import type { ByteString } from "../../tree/entry.ts";
import { shapeDirectory, type DirectoryShape } from "./directory.ts";
import { ROOT, type ErofsTree } from "./erofs-tree.ts";

/** A directory with its names in the order in which they are stored. */
export interface OrderedDirectory {
  readonly parent: number;
  /** Sorted, with `.` and `..`. */
  readonly names: readonly ByteString[];
  readonly childDirectories: number;
  readonly shape: DirectoryShape;
}

/** The inodes in the order in which they are written, which depends on nothing but the tree. */
export interface TreeOrder {
  /** The root, then what is in it, then what is in its first directory, and so on down and along. */
  readonly inodes: readonly number[];
  readonly directories: ReadonlyMap<number, OrderedDirectory>;
}

export function orderTree(tree: ErofsTree): TreeOrder {
  const seen = new Uint8Array(tree.inodes.end);
  const inodes: number[] = [ROOT];
  const directories = new Map<number, OrderedDirectory>();
  const pending: [number: number, parent: number][] = [[ROOT, ROOT]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [directory, parent] = next;
    const children = tree.names(directory);
    const names = [...children.keys(), ".", ".."].sort(); // the default order compares UTF-16 units, which are the bytes
    const firstPending = pending.length;
    for (const name of names) {
      const child = children.get(name);
      if (child === undefined || seen[child]) continue;
      seen[child] = 1;
      inodes.push(child);
      if (tree.kind(child) === "directory") pending.push([child, directory]);
    }
    const childDirectories = pending.length - firstPending;
    directories.set(directory, { parent, names, childDirectories, shape: shapeDirectory(names) });
    for (const last of pending.splice(firstPending).reverse()) pending.push(last); // the last is taken first
  }
  return { inodes, directories };
}
