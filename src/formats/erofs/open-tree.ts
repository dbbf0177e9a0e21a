import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import type { NamedInode } from "../../tree/filesystem-reader.ts";
import { quoted } from "../../tree/path.ts";
import type { DeviceRun } from "./chunk-map.ts";
import { ErofsReader } from "./erofs-reader.ts";
import { ErofsTree, ROOT } from "./erofs-tree.ts";
import { encodeDevice, KIND_OF, type ErofsInode } from "./inode.ts";
import type { InodeFields } from "./inode-table.ts";
import { BLOCK_BYTES, DATA_LAYOUT } from "./layout.ts";
import { checkWritable, type Superblock } from "./superblock.ts";

/** Loads a filesystem's whole tree: what is not file data. Throws `UNSUPPORTED` for one that can be read but not continued. */
export async function openTree(source: ByteSource): Promise<{ superblock: Superblock; tree: ErofsTree }> {
  const reader = await ErofsReader.open(source);
  checkWritable(reader.superblock, source.name);
  return { superblock: reader.superblock, tree: await new TreeLoader(reader).load() };
}

class TreeLoader {
  readonly #reader: ErofsReader;
  readonly #tree = new ErofsTree();
  /** Numbers in the tree by nid. */
  readonly #known = new Map<number, number>();

  constructor(reader: ErofsReader) {
    this.#reader = reader;
  }

  async load(): Promise<ErofsTree> {
    const { root } = this.#reader;
    const inode = await this.#reader.inode(root);
    if (inode.type !== "directory") throw corrupt(`${this.#reader.name}: the root is a ${inode.type}, expected a directory`);
    this.#tree.setRoot(await this.#fieldsOf(inode, inode.type));
    this.#known.set(root, ROOT);
    const pending: [nid: number, number: number][] = [[root, ROOT]];
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [nid, directory] = next;
      const names = await this.#reader.list(nid);
      await this.#reader.prefetch(names.map((child) => child.inode));
      const found: [nid: number, number: number][] = [];
      for (const child of names) {
        const number = await this.#add(directory, child);
        if (number !== undefined) found.push([child.inode, number]);
      }
      for (const child of found.reverse()) pending.push(child); // taken in the order in which they lie on the device
    }
    return this.#tree;
  }

  /** Adds a name; returns the number of a directory that is still to be read. */
  async #add(directory: number, { name, inode: nid }: NamedInode): Promise<number | undefined> {
    if (this.#tree.lookup(directory, name) !== undefined)
      throw corrupt(`${this.#reader.name}: a directory has the name ${quoted(name)} twice`);
    const known = this.#known.get(nid);
    if (known !== undefined && this.#tree.kind(known) === "directory")
      throw corrupt(`${this.#reader.name}: directory ${quoted(name)}, inode ${nid}, is also somewhere else`);
    const number = known ?? (await this.#inode(nid, name));
    this.#known.set(nid, number);
    this.#tree.insert(directory, name, number);
    return this.#tree.kind(number) === "directory" ? number : undefined;
  }

  async #inode(nid: number, name: ByteString): Promise<number> {
    const inode = await this.#reader.inode(nid);
    const { type } = inode;
    if (type === "unknown") throw corrupt(`${this.#reader.name}: ${quoted(name)}, inode ${nid}, has a mode of no type of file`);
    const fields = await this.#fieldsOf(inode, type);
    if (type === "directory") return this.#tree.addDirectory(fields);
    if (type === "symlink") return this.#tree.addSymlink(fields, await this.#reader.linkTarget(nid));
    if (type === "file") return this.#tree.addFile({ ...fields, size: inode.size }, await this.#runs(inode, name));
    return this.#tree.addOther(fields);
  }

  async #runs(inode: ErofsInode, name: ByteString): Promise<DeviceRun[]> {
    if (inode.layout === DATA_LAYOUT.inline && inode.size % BLOCK_BYTES > 0)
      throw unsupported(`${this.#reader.name}: ${quoted(name)} has data behind its inode; only files in blocks can be continued`);
    const extents = await this.#reader.extents(inode.number);
    return extents.map(({ offset, length, deviceOffset }) => ({
      fileBlock: offset / BLOCK_BYTES,
      blocks: Math.ceil(length / BLOCK_BYTES),
      block: deviceOffset / BLOCK_BYTES,
    }));
  }

  async #fieldsOf(inode: ErofsInode, type: keyof typeof KIND_OF): Promise<InodeFields> {
    const { number, mode, uid, gid, mtime, major, minor } = inode;
    const xattrs = await this.#reader.xattrs(number);
    const xattrSet = this.#tree.xattrSets.add(xattrs, `${this.#reader.name}: inode ${number}`);
    const data = type === "character" || type === "block" ? encodeDevice(major, minor) : 0;
    return { mode: KIND_OF[type] | mode, uid, gid, size: 0, mtime, xattrSet, data };
  }
}
