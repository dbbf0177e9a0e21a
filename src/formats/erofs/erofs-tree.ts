import type { ByteString } from "../../tree/entry.ts";
import type { FoundNode, TreeView } from "../../tree/resolve.ts";
import { joinRuns, plainBlock, type DeviceRun } from "./chunk-map.ts";
import { InodeTable, type InodeFields } from "./inode-table.ts";
import { NO_BLOCK } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";
import { NO_XATTRS, XattrSets } from "./xattr-sets.ts";

export const ROOT = 0;
/** V8 keeps a whole path alive for a name that was cut out of it, from this length on. */
const MIN_SLICED_CHARACTERS = 13;

export type Names = ReadonlyMap<ByteString, number>;

/** The filesystem's whole tree in memory: inodes, names, and where the files' data is. */
export class ErofsTree implements TreeView<number> {
  readonly root = ROOT;
  readonly inodes = new InodeTable();
  readonly xattrSets = new XattrSets();
  readonly #names = new Map<number, Map<ByteString, number>>();
  readonly #targets = new Map<number, ByteString>();
  /** Of files with holes. */
  readonly #runs = new Map<number, readonly DeviceRun[]>();

  /** The root directory; later calls change what it is. */
  setRoot(fields: InodeFields): void {
    if (this.inodes.end > 0) {
      this.inodes.set(ROOT, fields);
      return;
    }
    this.addDirectory(fields);
    this.inodes.addLink(ROOT);
  }

  kind(number: number): "directory" | "symlink" | "other" {
    const kind = this.inodes.mode(number) & FILE_KIND.mask;
    return kind === FILE_KIND.directory ? "directory" : kind === FILE_KIND.symlink ? "symlink" : "other";
  }

  lookup(directory: number, name: ByteString): number | undefined {
    return this.#names.get(directory)?.get(name);
  }

  linkTarget(number: number): ByteString {
    return this.#targets.get(number) ?? "";
  }

  names(directory: number): Names {
    return this.#names.get(directory) ?? new Map<ByteString, number>();
  }

  /** The runs of a file with holes; undefined for a file in one piece. */
  runs(number: number): readonly DeviceRun[] | undefined {
    return this.#runs.get(number);
  }

  addDirectory(fields: InodeFields): number {
    const number = this.inodes.add(fields);
    this.#names.set(number, new Map());
    return number;
  }

  addSymlink(fields: InodeFields, target: ByteString): number {
    const number = this.inodes.add(fields);
    this.#targets.set(number, unsliced(target));
    return number;
  }

  addFile(fields: Omit<InodeFields, "data">, runs: Iterable<DeviceRun>): number {
    const joined = joinRuns(runs, fields.size);
    const block = plainBlock(joined, fields.size);
    const number = this.inodes.add({ ...fields, data: block ?? NO_BLOCK });
    if (block === undefined) this.#runs.set(number, joined);
    return number;
  }

  addOther(fields: InodeFields): number {
    return this.inodes.add(fields);
  }

  /** Adds a name that the directory does not have. */
  insert(directory: number, name: ByteString, number: number): void {
    this.#names.get(directory)?.set(unsliced(name), number);
    this.inodes.addLink(number);
  }

  /** Takes a name away, and what it stood for when that was its last. */
  remove({ parent, name, node }: Pick<FoundNode<number>, "parent" | "name" | "node">): void {
    this.#names.get(parent)?.delete(name);
    this.#unlink(node);
  }

  clear(directory: number): void {
    const names = this.#names.get(directory);
    const numbers = [...(names?.values() ?? [])];
    names?.clear();
    for (const number of numbers) this.#unlink(number);
  }

  #unlink(number: number): void {
    const pending = [number];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      if (this.inodes.removeLink(next) > 0) continue;
      for (const child of this.#names.get(next)?.values() ?? []) pending.push(child);
      this.#names.delete(next);
      this.#targets.delete(next);
      this.#runs.delete(next);
      this.inodes.free(next);
    }
  }
}

/** A directory that no layer has an entry for. */
export const IMPLIED_DIRECTORY: InodeFields = {
  mode: FILE_KIND.directory | 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: { seconds: 0, nanoseconds: 0 },
  xattrSet: NO_XATTRS,
  data: 0,
};

function unsliced(text: ByteString): ByteString {
  return text.length < MIN_SLICED_CHARACTERS ? text : Buffer.from(text, "latin1").toString("latin1");
}
