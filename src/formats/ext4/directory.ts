import { crc32cRaw } from "../../bytes/crc32c.ts";
import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { quoted } from "../../tree/path.ts";
import { encodeLeaf, entryBytes, LEAF_TAIL_BYTES, readDirectoryBlock, type DirectoryEntry } from "./directory-block.ts";
import { hashName, type DirectoryHash } from "./directory-hash.ts";
import { encodeDirectoryIndex, nodesNeeded, parseDirectoryIndex, type DirectoryIndex } from "./directory-index.ts";
import { hashedInOrder, NameMap, type HashedNames } from "./directory-names.ts";

/** What the layout of a directory's blocks depends on. */
export interface DirectoryOptions {
  readonly blockBytes: number;
  /** Hashing new names; undefined where the filesystem has no hashed directories. */
  readonly hash: DirectoryHash | undefined;
  /** The inode's checksum seed; undefined where the filesystem has no metadata checksums. */
  readonly seed: number | undefined;
}

/** A directory's blocks: how many, and what is in them. They are read when they are needed. */
export interface DirectoryBlocks {
  readonly count: number;
  read(fileBlock: number): Uint8Array;
}

interface Leaf {
  readonly hash: number;
  readonly fileBlock: number;
  /** Undefined until somebody asks for one of them. */
  names: NameMap | undefined;
  changed: boolean;
}

/** Names of a directory that are not in its blocks, so that it can be dropped and made again. */
export interface PackedDirectory {
  readonly parent: number;
  /** By leaf; -1 for a directory without leaves. */
  readonly names: readonly (readonly [leaf: number, packed: Uint8Array])[];
}

const DOTS_BYTES = 24; // "." and "..", 12 each
const NO_BLOCKS: DirectoryBlocks = { count: 0, read: () => new Uint8Array() };

/**
 * A directory's names in memory, and how they become blocks: one plain block while they fit, hashed leaves from then on.
 * Of a hashed directory only leaves that are asked for are read, and only those whose names changed are written again; one
 * that overflows is split.
 */
export class Directory {
  readonly inode: number;
  readonly parent: number;
  readonly #options: DirectoryOptions;
  readonly #blocks: DirectoryBlocks;
  /** The names of a plain directory. */
  #names: NameMap;
  /** In hash order; empty for plain directories. */
  #leaves: Leaf[] = [];
  #nodeBlocks: readonly number[] = [];
  /** The filesystem's hash, in the version that this directory was built with. */
  #hashing: DirectoryHash | undefined;
  #blockCount: number;
  #changed = false;
  #loadedNames = 0;

  private constructor(inode: number, parent: number, blocks: DirectoryBlocks, options: DirectoryOptions) {
    this.inode = inode;
    this.parent = parent;
    this.#options = options;
    this.#blocks = blocks;
    this.#blockCount = blocks.count;
    this.#hashing = options.hash;
    this.#names = new NameMap();
  }

  static create(inode: number, parent: number, options: DirectoryOptions): Directory {
    const directory = new Directory(inode, parent, NO_BLOCKS, options);
    directory.#changed = true;
    return directory;
  }

  /** Loads a directory from its blocks. `hashed` is the inode's index flag. */
  static load(inode: number, blocks: DirectoryBlocks, hashed: boolean, options: DirectoryOptions): Directory {
    const index = hashed && options.hash ? usableIndex(blocks, `directory ${inode}`) : undefined;
    const directory = new Directory(inode, parentIn(blocks, inode), blocks, options);
    if (index) directory.#useIndex(index);
    else for (let fileBlock = 0; fileBlock < blocks.count; fileBlock++) directory.#readNames(fileBlock, directory.#names);
    return directory;
  }

  /** A directory from its blocks, if any, and what `packed` gave. */
  static unpack(inode: number, packed: PackedDirectory, blocks: DirectoryBlocks, hashed: boolean, options: DirectoryOptions): Directory {
    const directory = blocks.count === 0 ? Directory.create(inode, packed.parent, options) : Directory.load(inode, blocks, hashed, options);
    for (const [leaf, bytes] of packed.names) {
      const names = NameMap.unpack(bytes);
      const before = leaf < 0 ? directory.#names : directory.#leaves[leaf].names;
      directory.#loadedNames += names.size - (before?.size ?? 0);
      if (leaf < 0) directory.#names = names;
      else Object.assign(directory.#leaves[leaf], { names, changed: true });
    }
    directory.#changed = true;
    return directory;
  }

  /** What `unpack` needs; undefined where the blocks say it all. */
  packed(): PackedDirectory | undefined {
    if (!this.#changed) return undefined;
    if (!this.hashed) return { parent: this.parent, names: [[-1, this.#names.pack()]] };
    const changed = [...this.#leaves.entries()].filter(([, leaf]) => leaf.changed);
    return { parent: this.parent, names: changed.map(([number, leaf]) => [number, this.#namesOf(leaf).pack()]) };
  }

  #useIndex(index: DirectoryIndex): void {
    this.#hashing = { ...this.#options.hash!, version: index.hashVersion };
    this.#nodeBlocks = index.nodeBlocks;
    this.#leaves = index.entries.map(({ hash, fileBlock }) => ({ hash, fileBlock, names: undefined, changed: false }));
  }

  #readNames(fileBlock: number, names: NameMap): void {
    const where = `directory ${this.inode}`;
    readDirectoryBlock(this.#blocks.read(fileBlock), where, ({ name, inode, type }) => {
      if (name === "." || name === "..") return;
      if (names.has(name)) throw corrupt(`${where}: the name ${quoted(name)} occurs twice`);
      names.set(name, inode, type);
      this.#loadedNames++;
    });
  }

  #namesOf(leaf: Leaf): NameMap {
    if (leaf.names) return leaf.names;
    leaf.names = new NameMap();
    this.#readNames(leaf.fileBlock, leaf.names);
    return leaf.names;
  }

  /** Names in memory. */
  get loadedNames(): number {
    return this.#loadedNames;
  }

  get changed(): boolean {
    return this.#changed;
  }

  get hashed(): boolean {
    return this.#leaves.length > 0;
  }

  lookup(name: ByteString): number | undefined {
    return (this.hashed ? this.#leafOf(name)?.names : this.#names)?.inode(name);
  }

  /** All names. */
  *entries(): Generator<DirectoryEntry> {
    if (!this.hashed) yield* this.#names.entries();
    for (const leaf of this.#leaves) yield* this.#namesOf(leaf).entries();
  }

  /** Adds a name that is not there. */
  insert(name: ByteString, inode: number, type: number): void {
    const leaf = this.hashed ? this.#leaves[this.#leafFor(this.#hash(name))] : undefined;
    (leaf ? this.#namesOf(leaf) : this.#names).set(name, inode, type);
    if (leaf) leaf.changed = true;
    this.#changed = true;
    this.#loadedNames++;
  }

  remove(name: ByteString): void {
    const leaf = this.hashed ? this.#leafOf(name) : undefined;
    if (leaf) leaf.changed = true;
    if (!(this.hashed ? leaf?.names : this.#names)?.delete(name)) return;
    this.#changed = true;
    this.#loadedNames--;
  }

  /** The leaf that holds a name. */
  #leafOf(name: ByteString): Leaf | undefined {
    const hash = this.#hash(name);
    for (let at = this.#leafFor(hash); at < this.#leaves.length; at++) {
      if (this.#namesOf(this.#leaves[at]).has(name)) return this.#leaves[at];
      if (this.#leaves[at + 1]?.hash !== hash + 1) break; // else the next leaf goes on with the same hash
    }
    return undefined;
  }

  /** Decides what goes into which block, and returns how many blocks that takes. */
  layOut(): number {
    if (this.hashed) this.#splitOverflowing();
    else this.#layOutPlain();
    return this.#blockCount;
  }

  get #leafCapacity(): number {
    return this.#options.blockBytes - (this.#options.seed === undefined ? 0 : LEAF_TAIL_BYTES);
  }

  #layOutPlain(): void {
    if (this.#names.usedBytes + DOTS_BYTES <= this.#leafCapacity) {
      this.#blockCount = 1;
    } else if (!this.#options.hash) {
      this.#blockCount = [...this.#linearBlocks()].length;
    } else {
      this.#leaves = this.#fillLeaves(hashedInOrder(this.#names, this.#hashing!), 1);
      this.#names = new NameMap();
      this.#placeNodes(1 + this.#leaves.length);
    }
  }

  /** Writes the blocks that changed, by their number within the directory. `layOut` comes first. */
  encode(write: (fileBlock: number, bytes: Uint8Array) => void): void {
    if (this.hashed) this.#encodeHashed(write);
    else for (const [fileBlock, entries] of [...this.#linearBlocks()].entries()) write(fileBlock, this.#leafBlock(entries));
    this.#changed = false;
  }

  #encodeHashed(write: (fileBlock: number, bytes: Uint8Array) => void): void {
    for (const leaf of this.#leaves) {
      if (!leaf.changed) continue;
      const { names } = hashedInOrder(this.#namesOf(leaf), this.#hashing!);
      write(leaf.fileBlock, this.#leafBlock(names.map((name) => leaf.names!.entry(name))));
      leaf.changed = false;
    }
    const index = { hashVersion: this.#hashing!.version, entries: this.#leaves, nodeBlocks: this.#nodeBlocks };
    const { blockBytes, seed } = this.#options;
    for (const node of encodeDirectoryIndex(index, this, blockBytes, seed)) write(node.fileBlock, node.bytes);
  }

  /** The names block by block, without an index. */
  *#linearBlocks(): Generator<DirectoryEntry[]> {
    let own: DirectoryEntry[] = [
      { name: ".", inode: this.inode, type: 2 },
      { name: "..", inode: this.parent, type: 2 },
    ];
    let used = DOTS_BYTES;
    for (const name of this.#names.sorted()) {
      const length = entryBytes(name.length);
      if (used + length > this.#leafCapacity) {
        yield own;
        [own, used] = [[], 0];
      }
      own.push(this.#names.entry(name));
      used += length;
    }
    yield own;
  }

  #hash(name: ByteString): number {
    return hashName(name, this.#hashing!);
  }

  /** Distributes names in hash order over as few leaves as hold them. */
  #fillLeaves({ names, hashes }: HashedNames, firstBlock: number): Leaf[] {
    const leaves: Leaf[] = [];
    for (const [at, name] of names.entries()) {
      let own = leaves.at(-1)?.names;
      if (!own || own.usedBytes + entryBytes(name.length) > this.#leafCapacity) {
        own = new NameMap();
        const hash = at === 0 ? 0 : hashes[at] + (hashes[at] === hashes[at - 1] ? 1 : 0);
        leaves.push({ hash, fileBlock: firstBlock + leaves.length, names: own, changed: true });
      }
      own.take(name, this.#names);
    }
    return leaves;
  }

  /** Gives the inner nodes blocks after the leaves, once the root no longer holds all leaves. */
  #placeNodes(blockCount: number): void {
    const needed = nodesNeeded(this.#leaves.length, this.#options.blockBytes, this.#options.seed !== undefined);
    const missing = Math.max(0, needed - this.#nodeBlocks.length);
    this.#nodeBlocks = [...this.#nodeBlocks, ...Array.from({ length: missing }, (_, index) => blockCount + index)];
    this.#blockCount = blockCount + missing;
  }

  /** The place of the last leaf whose lowest hash is not above `hash`. */
  #leafFor(hash: number): number {
    let low = 0;
    let high = this.#leaves.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#leaves[middle].hash <= hash) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Splits leaves that hold more than a block; the first part keeps the block, the others are appended. */
  #splitOverflowing(): void {
    const leaves: Leaf[] = [];
    let blockCount = this.#blockCount;
    for (const leaf of this.#leaves) {
      if (!leaf.changed || this.#namesOf(leaf).usedBytes <= this.#leafCapacity) {
        leaves.push(leaf);
        continue;
      }
      const parts = this.#fillEvenly(leaf, blockCount);
      blockCount += parts.length - 1;
      leaves.push(...parts);
    }
    this.#leaves = leaves;
    this.#placeNodes(blockCount);
  }

  /** Refills one overflowing leaf's names evenly, so that all parts have room to grow. */
  #fillEvenly(leaf: Leaf, nextBlock: number): Leaf[] {
    const all = this.#namesOf(leaf);
    const { names, hashes } = hashedInOrder(all, this.#hashing!);
    const target = Math.ceil(all.usedBytes / Math.ceil(all.usedBytes / this.#leafCapacity));
    let own = new NameMap();
    const leaves: Leaf[] = [{ hash: leaf.hash, fileBlock: leaf.fileBlock, names: own, changed: true }];
    for (const [at, name] of names.entries()) {
      const isFull = own.usedBytes >= target || own.usedBytes + entryBytes(name.length) > this.#leafCapacity;
      if (own.usedBytes > 0 && isFull) {
        own = new NameMap();
        const hash = hashes[at] + (hashes[at] === hashes[at - 1] ? 1 : 0);
        leaves.push({ hash, fileBlock: nextBlock + leaves.length - 1, names: own, changed: true });
      }
      own.take(name, all);
    }
    return leaves;
  }

  #leafBlock(entries: readonly DirectoryEntry[]): Uint8Array {
    const { blockBytes, seed } = this.#options;
    const bytes = encodeLeaf(entries, blockBytes, seed !== undefined);
    if (seed === undefined) return bytes;
    const end = blockBytes - LEAF_TAIL_BYTES;
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(end + 8, crc32cRaw(seed, bytes, 0, end), true);
    return bytes;
  }
}

/** What the second entry, `..`, says; the directory itself where there is none. */
function parentIn(blocks: DirectoryBlocks, inode: number): number {
  if (blocks.count === 0) return inode;
  const bytes = Buffer.from(blocks.read(0));
  const isParent = bytes[18] === 2 && bytes.toString("latin1", 20, 22) === "..";
  return isParent ? bytes.readUInt32LE(12) : inode;
}

/**
 * The index of a hashed directory. One that does not account for every block exactly once, as in the lost+found of some
 * tools, is not built upon: the directory counts as plain, so that its first change makes all blocks anew.
 */
function usableIndex(blocks: DirectoryBlocks, where: string): DirectoryIndex | undefined {
  const empty = new Uint8Array(blocks.count === 0 ? 0 : blocks.read(0).length);
  const index = parseDirectoryIndex((fileBlock) => (fileBlock < blocks.count ? blocks.read(fileBlock) : empty), where);
  const known = new Set([0, ...index.nodeBlocks, ...index.entries.map((entry) => entry.fileBlock)]);
  const complete = known.size === 1 + index.nodeBlocks.length + index.entries.length && known.size === blocks.count;
  return complete && [...known].every((fileBlock) => fileBlock < blocks.count) ? index : undefined;
}
