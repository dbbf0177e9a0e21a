import { crc32cRaw } from "../../bytes/crc32c.ts";
import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { quoted } from "../../tree/path.ts";
import { encodeLeaf, entryBytes, LEAF_TAIL_BYTES, readDirectoryBlock, type DirectoryEntry } from "./directory-block.ts";
import { hashName, type DirectoryHash } from "./directory-hash.ts";
import { encodeDirectoryIndex, nodesNeeded, parseDirectoryIndex, type IndexEntry } from "./directory-index.ts";

/** What the layout of a directory's blocks depends on. */
export interface DirectoryOptions {
  readonly blockBytes: number;
  /** Hashing new names; undefined where the filesystem has no hashed directories. */
  readonly hash: DirectoryHash | undefined;
  /** The inode's checksum seed; undefined where the filesystem has no metadata checksums. */
  readonly seed: number | undefined;
}

/** A directory's blocks by their number within it. */
export type DirectoryBlocks = ReadonlyMap<number, Uint8Array>;

interface Leaf {
  readonly hash: number;
  readonly fileBlock: number;
  usedBytes: number;
  changed: boolean;
}

interface Slot {
  inode: number;
  readonly type: number;
  /** Where the entry is stored; undefined while it is new. */
  leaf: Leaf | undefined;
}

const DOTS_BYTES = 24; // "." and "..", 12 each

/**
 * A directory's names in memory, and how they become blocks: one plain block while they fit, hashed leaves from then on.
 * Of a hashed directory only leaves whose names changed are written again; one that overflows is split.
 */
export class Directory {
  readonly inode: number;
  readonly parent: number;
  readonly #options: DirectoryOptions;
  readonly #slots = new Map<ByteString, Slot>();
  /** In hash order; empty for plain directories. */
  #leaves: Leaf[] = [];
  #nodeBlocks: readonly number[] = [];
  /** The filesystem's hash, in the version that this directory was built with. */
  #hashing: DirectoryHash | undefined;
  #blockCount = 0;
  #changed: boolean;

  private constructor(inode: number, parent: number, options: DirectoryOptions) {
    this.inode = inode;
    this.parent = parent;
    this.#options = options;
    this.#hashing = options.hash;
    this.#changed = false;
  }

  static create(inode: number, parent: number, options: DirectoryOptions): Directory {
    const directory = new Directory(inode, parent, options);
    directory.#changed = true;
    return directory;
  }

  /** Loads a directory from its blocks. `hashed` is the inode's index flag. */
  static load(inode: number, blocks: DirectoryBlocks, hashed: boolean, options: DirectoryOptions): Directory {
    const where = `directory ${inode}`;
    let parent = inode;
    const found: { entry: DirectoryEntry; fileBlock: number }[] = [];
    for (const [fileBlock, bytes] of blocks) {
      readDirectoryBlock(bytes, where, (entry) => {
        if (entry.name === "..") parent = entry.inode;
        else if (entry.name !== ".") found.push({ entry, fileBlock });
      });
    }
    const directory = new Directory(inode, parent, options);
    directory.#blockCount = blocks.size;
    const leaves = hashed && options.hash ? directory.#loadIndex(blocks, where) : new Map<number, Leaf>();
    for (const { entry, fileBlock } of found) {
      const leaf = leaves.get(fileBlock);
      if (leaf) leaf.usedBytes += entryBytes(entry.name.length);
      if (directory.#slots.has(entry.name)) throw corrupt(`${where}: the name ${quoted(entry.name)} occurs twice`);
      directory.#slots.set(entry.name, { inode: entry.inode, type: entry.type, leaf });
    }
    return directory;
  }

  /**
   * The leaves that the index knows, by their block. An index that does not account for every block exactly once, as in
   * the lost+found of some tools, is not built upon: the directory counts as plain, so that its first change makes all
   * blocks anew.
   */
  #loadIndex(blocks: DirectoryBlocks, where: string): Map<number, Leaf> {
    const index = parseDirectoryIndex((fileBlock) => blocks.get(fileBlock) ?? new Uint8Array(this.#options.blockBytes), where);
    const known = new Set([0, ...index.nodeBlocks, ...index.entries.map((entry) => entry.fileBlock)]);
    const complete = known.size === 1 + index.nodeBlocks.length + index.entries.length && known.size === blocks.size;
    if (!complete || [...known].some((fileBlock) => !blocks.has(fileBlock))) return new Map();
    this.#hashing = { ...this.#options.hash!, version: index.hashVersion };
    this.#nodeBlocks = index.nodeBlocks;
    this.#leaves = index.entries.map((entry) => ({ ...entry, usedBytes: 0, changed: false }));
    return new Map(this.#leaves.map((leaf) => [leaf.fileBlock, leaf]));
  }

  get size(): number {
    return this.#slots.size;
  }

  get changed(): boolean {
    return this.#changed;
  }

  get hashed(): boolean {
    return this.#leaves.length > 0;
  }

  lookup(name: ByteString): number | undefined {
    return this.#slots.get(name)?.inode;
  }

  *entries(): Generator<DirectoryEntry> {
    for (const [name, { inode, type }] of this.#slots) yield { name, inode, type };
  }

  insert(name: ByteString, inode: number, type: number): void {
    this.#slots.set(name, { inode, type, leaf: undefined });
    this.#changed = true;
  }

  remove(name: ByteString): void {
    const slot = this.#slots.get(name);
    if (!slot) return;
    this.#slots.delete(name);
    this.#changed = true;
    if (!slot.leaf) return;
    slot.leaf.usedBytes -= entryBytes(name.length);
    slot.leaf.changed = true;
  }

  /** The blocks to write, by their number within the directory, and how many the directory has now. */
  encode(): { blocks: Map<number, Uint8Array>; blockCount: number } {
    const blocks = this.hashed ? this.#encodeHashed() : this.#encodePlain();
    this.#changed = false;
    return { blocks, blockCount: this.#blockCount };
  }

  get #leafCapacity(): number {
    return this.#options.blockBytes - (this.#options.seed === undefined ? 0 : LEAF_TAIL_BYTES);
  }

  #encodePlain(): Map<number, Uint8Array> {
    const names = [...this.#slots.keys()].toSorted(byName);
    const bytes = names.reduce((sum, name) => sum + entryBytes(name.length), DOTS_BYTES);
    if (bytes <= this.#leafCapacity || !this.#options.hash) return this.#encodeLinear(names);
    const sorted = this.#hashAll(names);
    this.#leaves = this.#fillLeaves(sorted, 1, 0);
    this.#placeNodes(1 + this.#leaves.length);
    return this.#encodeHashed();
  }

  /** Fills blocks one after the other, without an index. */
  #encodeLinear(names: readonly ByteString[]): Map<number, Uint8Array> {
    const blocks = new Map<number, Uint8Array>();
    let own = this.#dots();
    let used = DOTS_BYTES;
    for (const name of names) {
      const length = entryBytes(name.length);
      if (used + length > this.#leafCapacity) {
        blocks.set(blocks.size, this.#leafBlock(own));
        [own, used] = [[], 0];
      }
      own.push(this.#entry(name));
      used += length;
    }
    blocks.set(blocks.size, this.#leafBlock(own));
    this.#blockCount = blocks.size;
    return blocks;
  }

  #dots(): DirectoryEntry[] {
    return [
      { name: ".", inode: this.inode, type: 2 },
      { name: "..", inode: this.parent, type: 2 },
    ];
  }

  #entry(name: ByteString): DirectoryEntry {
    const slot = this.#slots.get(name)!;
    return { name, inode: slot.inode, type: slot.type };
  }

  #hash(name: ByteString): number {
    return hashName(name, this.#hashing!);
  }

  #hashAll(names: readonly ByteString[]): HashedName[] {
    return names.map((name) => ({ name, hash: this.#hash(name) })).toSorted((a, b) => a.hash - b.hash || byName(a.name, b.name));
  }

  /** Distributes names in hash order over as few leaves as hold them; the first starts at `firstHash`. */
  #fillLeaves(sorted: readonly HashedName[], firstBlock: number, firstHash: number): Leaf[] {
    const leaves: Leaf[] = [];
    let last = 0;
    for (const { name, hash } of sorted) {
      const length = entryBytes(name.length);
      let leaf = leaves.at(-1);
      if (!leaf || leaf.usedBytes + length > this.#leafCapacity) {
        const lowest = leaf ? hash + (hash === last ? 1 : 0) : firstHash;
        leaf = { hash: lowest, fileBlock: firstBlock + leaves.length, usedBytes: 0, changed: true };
        leaves.push(leaf);
      }
      leaf.usedBytes += length;
      this.#slots.get(name)!.leaf = leaf;
      last = hash;
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

  #encodeHashed(): Map<number, Uint8Array> {
    this.#assignNew();
    const members = this.#membersOfChanged();
    this.#splitOverflowing(members);
    const blocks = new Map<number, Uint8Array>();
    for (const leaf of this.#leaves) {
      if (!leaf.changed) continue;
      const sorted = this.#hashAll(members.get(leaf) ?? []);
      blocks.set(leaf.fileBlock, this.#leafBlock(sorted.map(({ name }) => this.#entry(name))));
      leaf.changed = false;
    }
    const index = { hashVersion: this.#hashing!.version, entries: this.#leaves satisfies IndexEntry[], nodeBlocks: this.#nodeBlocks };
    for (const node of encodeDirectoryIndex(index, this, this.#options.blockBytes, this.#options.seed))
      blocks.set(node.fileBlock, node.bytes);
    return blocks;
  }

  #assignNew(): void {
    for (const [name, slot] of this.#slots) {
      if (slot.leaf) continue;
      slot.leaf = this.#leafFor(this.#hash(name));
      slot.leaf.usedBytes += entryBytes(name.length);
      slot.leaf.changed = true;
    }
  }

  /** The last leaf whose lowest hash is not above `hash`. */
  #leafFor(hash: number): Leaf {
    let low = 0;
    let high = this.#leaves.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#leaves[middle].hash <= hash) low = middle;
      else high = middle;
    }
    return this.#leaves[low];
  }

  #membersOfChanged(): Map<Leaf, ByteString[]> {
    const members = new Map<Leaf, ByteString[]>();
    for (const leaf of this.#leaves) if (leaf.changed) members.set(leaf, []);
    for (const [name, slot] of this.#slots) members.get(slot.leaf!)?.push(name);
    return members;
  }

  /** Splits leaves that hold more than a block; the first part keeps the block, the others are appended. */
  #splitOverflowing(members: Map<Leaf, ByteString[]>): void {
    const leaves: Leaf[] = [];
    let blockCount = this.#blockCount;
    for (const leaf of this.#leaves) {
      if (leaf.usedBytes <= this.#leafCapacity) {
        leaves.push(leaf);
        continue;
      }
      const [first, ...more] = this.#fillHalves(this.#hashAll(members.get(leaf)!), leaf, blockCount);
      blockCount += more.length;
      for (const part of [first, ...more]) members.set(part, []);
      for (const name of members.get(leaf)!) members.get(this.#slots.get(name)!.leaf!)!.push(name);
      leaves.push(first, ...more);
    }
    this.#leaves = leaves;
    this.#placeNodes(blockCount);
  }

  /** Refills one overflowing leaf's names evenly, so that both halves have room to grow. */
  #fillHalves(sorted: readonly HashedName[], leaf: Leaf, nextBlock: number): Leaf[] {
    const parts = Math.ceil(leaf.usedBytes / this.#leafCapacity);
    const target = Math.ceil(leaf.usedBytes / parts);
    const leaves: Leaf[] = [{ hash: leaf.hash, fileBlock: leaf.fileBlock, usedBytes: 0, changed: true }];
    let last = -1;
    for (const { name, hash } of sorted) {
      const length = entryBytes(name.length);
      let part = leaves.at(-1)!;
      if (part.usedBytes > 0 && (part.usedBytes >= target || part.usedBytes + length > this.#leafCapacity)) {
        part = { hash: hash + (hash === last ? 1 : 0), fileBlock: nextBlock + leaves.length - 1, usedBytes: 0, changed: true };
        leaves.push(part);
      }
      part.usedBytes += length;
      this.#slots.get(name)!.leaf = part;
      last = hash;
    }
    return leaves;
  }

  #leafBlock(entries: Iterable<DirectoryEntry>): Uint8Array {
    const { blockBytes, seed } = this.#options;
    const bytes = encodeLeaf(entries, blockBytes, seed !== undefined);
    if (seed === undefined) return bytes;
    const end = blockBytes - LEAF_TAIL_BYTES;
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(end + 8, crc32cRaw(seed, bytes, 0, end), true);
    return bytes;
  }
}

interface HashedName {
  readonly name: ByteString;
  readonly hash: number;
}

function byName(a: ByteString, b: ByteString): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
