import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import type { DirectoryEntry } from "./directory-block.ts";
import { Directory, type DirectoryBlocks, type DirectoryOptions, type PackedDirectory } from "./directory.ts";
import type { Extent } from "./extent-tree.ts";
import type { Inode } from "./inode.ts";
import { BLOCK_BYTES, COMPAT, INODE_FLAG, MAX_LINKS } from "./layout.ts";
import { DIRENT_TYPE, FILE_KIND } from "../../tree/file-kind.ts";
import type { Volume } from "./volume.ts";

/** Names kept in memory at a time; beyond that the directories used longest ago are packed. */
const MAX_NAMES = 50_000;
/** Directories that stay in any case: one that alone has too many names must not be unpacked for each of its children. */
const MIN_DIRECTORIES = 8;
const DIRECTORY_TYPE = DIRENT_TYPE.get(FILE_KIND.directory);

/** A directory with the part of its inode that follows from its content. */
interface OpenDirectory {
  readonly names: Directory;
  /** Its own two links and one for each child directory; `undefined` when there are too many to count. */
  links: number | undefined;
}

/** A directory that did not fit memory. */
interface PackedOpenDirectory {
  readonly names: PackedDirectory;
  readonly links: number | undefined;
}

/**
 * The directories in use during a layer; their blocks are written at its end. What does not fit memory is packed, or dropped
 * when it has not changed: how many names are kept has no effect on what is written.
 */
export class DirectoryStore {
  readonly #volume: Volume;
  readonly #maxNames: number;
  /** Least recently used first. */
  readonly #open = new Map<number, OpenDirectory>();
  readonly #packed = new Map<number, PackedOpenDirectory>();
  /** Names in all open directories, and one for each directory. */
  #names = 0;
  #last: { readonly number: number; readonly directory: OpenDirectory } | undefined;

  constructor(volume: Volume, maxNames = MAX_NAMES) {
    this.#volume = volume;
    this.#maxNames = maxNames;
  }

  lookup(number: number, name: ByteString): number | undefined {
    const { names } = this.#get(number);
    const before = names.loadedNames;
    const found = names.lookup(name);
    this.#names += names.loadedNames - before;
    return found;
  }

  /** All names in a directory, as they are now. */
  entries(number: number): DirectoryEntry[] {
    const { names } = this.#get(number);
    const before = names.loadedNames;
    const entries = [...names.entries()];
    this.#names += names.loadedNames - before;
    return entries;
  }

  /** Adds a name that the directory does not have. */
  insert(number: number, entry: DirectoryEntry): void {
    const directory = this.#get(number);
    const before = directory.names.loadedNames;
    directory.names.insert(entry.name, entry.inode, entry.type);
    if (entry.type === DIRECTORY_TYPE && directory.links !== undefined) directory.links++;
    this.#names += directory.names.loadedNames - before;
    this.#evict();
  }

  /** Takes away a name that the directory has. */
  remove(number: number, name: ByteString, isDirectory: boolean): void {
    const directory = this.#get(number);
    const before = directory.names.loadedNames;
    directory.names.remove(name);
    if (isDirectory && directory.links !== undefined) directory.links--;
    this.#names += directory.names.loadedNames - before;
  }

  /** A directory's names and links, read from its blocks on first use. Valid until the next call. */
  #get(number: number): OpenDirectory {
    if (this.#last?.number === number) return this.#last.directory;
    const directory = this.#open.get(number) ?? this.#load(number);
    this.#open.delete(number);
    this.#add(number, directory);
    return directory;
  }

  #load(number: number): OpenDirectory {
    const inode = this.#volume.inodes.read(number);
    const packed = this.#packed.get(number);
    const blocks = this.#blocksOf(number, inode);
    const hashed = (inode.flags & INODE_FLAG.index) !== 0;
    const options = this.#options(number, inode);
    const names = packed
      ? Directory.unpack(number, packed.names, blocks, hashed, options)
      : Directory.load(number, blocks, hashed, options);
    this.#packed.delete(number);
    this.#names += names.loadedNames + 1;
    return { names, links: packed ? packed.links : inode.links === 1 ? undefined : inode.links };
  }

  /** The blocks of a directory as they were written last. */
  #blocksOf(number: number, inode: Inode): DirectoryBlocks {
    const places: number[] = [];
    for (const extent of this.#volume.extents(number, inode).extents) {
      if (extent.fileBlock !== places.length) throw corrupt(`directory ${number} has a hole at its block ${places.length}`);
      for (let index = 0; index < extent.blocks; index++) places.push(extent.block + index);
    }
    return { count: places.length, read: (fileBlock) => this.#volume.blocks.get(places[fileBlock]) };
  }

  /** Starts an empty directory whose inode has been written. */
  create(number: number, parent: number): void {
    const names = Directory.create(number, parent, this.#options(number, this.#volume.inodes.read(number)));
    this.#names++;
    this.#add(number, { names, links: 2 });
  }

  /** Makes a directory the most recently used one. */
  #add(number: number, directory: OpenDirectory): void {
    this.#open.set(number, directory);
    this.#last = { number, directory };
    this.#evict();
  }

  /** When there are too many names: keeps half of them, and in any case the directories used last. */
  #evict(): void {
    if (this.#names <= this.#maxNames) return;
    for (const [number, directory] of this.#open) {
      if (this.#names <= this.#maxNames / 2 || this.#open.size <= MIN_DIRECTORIES) return;
      const packed = directory.names.packed();
      if (packed) this.#packed.set(number, { names: packed, links: directory.links });
      this.#forget(number);
    }
  }

  #forget(number: number): void {
    const directory = this.#open.get(number);
    if (directory) this.#names -= directory.names.loadedNames + 1;
    this.#open.delete(number);
    if (this.#last?.number === number) this.#last = undefined;
  }

  #options(number: number, inode: Inode): DirectoryOptions {
    const { superblock } = this.#volume;
    const hashed = (superblock.fields.compat & COMPAT.dirIndex) !== 0;
    return { blockBytes: BLOCK_BYTES, hash: hashed ? superblock.hash : undefined, seed: this.#volume.seedOf(number, inode) };
  }

  /** Frees a directory's blocks; the caller frees its inode. */
  delete(number: number, inode: Inode): void {
    this.#forget(number);
    this.#packed.delete(number);
    const { extents, nodes } = this.#volume.extents(number, inode);
    for (const extent of extents) for (let index = 0; index < extent.blocks; index++) this.#volume.release(extent.block + index);
    for (const block of nodes) this.#volume.release(block);
  }

  /** Writes every changed directory, in the order of their numbers, and forgets them all. */
  flush(): void {
    for (const number of [...this.#open.keys(), ...this.#packed.keys()].sort((a, b) => a - b)) {
      this.#volume.blocks.pack();
      const { names, links } = this.#open.get(number) ?? this.#load(number);
      if (names.changed) this.#write(number, names, links);
      this.#open.delete(number);
    }
    this.#last = undefined;
    this.#names = 0;
  }

  #write(number: number, names: Directory, links: number | undefined): void {
    const { blocks, inodes } = this.#volume;
    const inode = inodes.read(number);
    const blockCount = names.layOut();
    const places = this.#resize(number, inode, blockCount);
    names.encode((fileBlock, bytes) => blocks.write(places[fileBlock], bytes));
    inode.links = links === undefined || links > MAX_LINKS ? 1 : links;
    inode.size = blockCount * BLOCK_BYTES;
    inode.flags = names.hashed ? inode.flags | INODE_FLAG.index : inode.flags & ~INODE_FLAG.index;
    inodes.write(number, inode, inodes.xattrArea(number));
  }

  /** Gives a directory as many blocks as it needs and returns where they are. */
  #resize(number: number, inode: Inode, blockCount: number): number[] {
    const { extents } = this.#volume.extents(number, inode);
    const places = extents.flatMap((extent) => Array.from({ length: extent.blocks }, (_, index) => extent.block + index));
    if (places.length === blockCount) return places;
    for (const block of places.splice(blockCount)) this.#volume.release(block);
    if (places.length < blockCount) {
      for (const run of this.#volume.allocate(blockCount - places.length)) {
        for (let index = 0; index < run.blocks; index++) places.push(run.block + index);
      }
    }
    const wanted: Extent[] = places.map((block, fileBlock) => ({ fileBlock, blocks: 1, block, unwritten: false }));
    this.#volume.setExtents(number, inode, wanted);
    return places;
  }
}
