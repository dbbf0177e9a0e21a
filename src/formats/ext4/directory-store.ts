import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import type { DirectoryEntry } from "./directory-block.ts";
import { Directory, type DirectoryOptions } from "./directory.ts";
import type { Extent } from "./extent-tree.ts";
import type { Inode } from "./inode.ts";
import { BLOCK_BYTES, COMPAT, DIRENT_TYPE, FILE_KIND, INODE_FLAG, MAX_LINKS } from "./layout.ts";
import type { Volume } from "./volume.ts";

/** Names kept in memory at a time; beyond that the directories used longest ago are written and dropped. */
const MAX_NAMES = 100_000;
/** Directories that stay in any case: one that alone has too many names must not be read anew for each of its children. */
const MIN_DIRECTORIES = 8;
const DIRECTORY_TYPE = DIRENT_TYPE.get(FILE_KIND.directory);

/** A directory with the part of its inode that follows from its content. */
interface OpenDirectory {
  readonly names: Directory;
  /** Its own two links and one for each child directory; `undefined` when there are too many to count. */
  links: number | undefined;
}

/** The directories in use during a layer. Those that do not fit memory are written and read again when they are needed. */
export class DirectoryStore {
  readonly #volume: Volume;
  readonly #maxNames: number;
  /** Least recently used first. */
  readonly #open = new Map<number, OpenDirectory>();
  /** Names in all open directories, and one for each directory. */
  #names = 0;
  #last: { readonly number: number; readonly directory: OpenDirectory } | undefined;

  constructor(volume: Volume, maxNames = MAX_NAMES) {
    this.#volume = volume;
    this.#maxNames = maxNames;
  }

  lookup(number: number, name: ByteString): number | undefined {
    return this.#get(number).names.lookup(name);
  }

  /** All names in a directory, as they are now. */
  entries(number: number): DirectoryEntry[] {
    return [...this.#get(number).names.entries()];
  }

  /** Adds a name that the directory does not have. */
  insert(number: number, entry: DirectoryEntry): void {
    const directory = this.#get(number);
    directory.names.insert(entry.name, entry.inode, entry.type);
    if (entry.type === DIRECTORY_TYPE && directory.links !== undefined) directory.links++;
    this.#names++;
    this.#evict();
  }

  /** Takes away a name that the directory has. */
  remove(number: number, name: ByteString, isDirectory: boolean): void {
    const directory = this.#get(number);
    directory.names.remove(name);
    if (isDirectory && directory.links !== undefined) directory.links--;
    this.#names--;
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
    const blocks = new Map<number, Uint8Array>();
    for (const extent of this.#volume.extents(number, inode).extents) {
      if (extent.fileBlock !== blocks.size) throw corrupt(`directory ${number} has a hole at its block ${blocks.size}`);
      for (let index = 0; index < extent.blocks; index++)
        blocks.set(extent.fileBlock + index, this.#volume.blocks.get(extent.block + index));
    }
    const names = Directory.load(number, blocks, (inode.flags & INODE_FLAG.index) !== 0, this.#options(number, inode));
    this.#names += names.size + 1;
    return { names, links: inode.links === 1 ? undefined : inode.links };
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
      this.#write(number, directory);
      this.#forget(number);
    }
  }

  #forget(number: number): void {
    const directory = this.#open.get(number);
    if (directory) this.#names -= directory.names.size + 1;
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
    const { extents, nodes } = this.#volume.extents(number, inode);
    for (const extent of extents) for (let index = 0; index < extent.blocks; index++) this.#volume.release(extent.block + index);
    for (const block of nodes) this.#volume.release(block);
  }

  /** Writes every changed directory and forgets them all. */
  flush(): void {
    for (const [number, directory] of [...this.#open].toSorted(([a], [b]) => a - b)) this.#write(number, directory);
    this.#open.clear();
    this.#last = undefined;
    this.#names = 0;
  }

  #write(number: number, directory: OpenDirectory): void {
    const { blocks, inodes } = this.#volume;
    const inode = inodes.read(number);
    const links = directory.links === undefined || directory.links > MAX_LINKS ? 1 : directory.links;
    if (!directory.names.changed && inode.links === links) return;
    inode.links = links;
    if (directory.names.changed) {
      const encoded = directory.names.encode();
      const places = this.#resize(number, inode, encoded.blockCount);
      for (const [fileBlock, bytes] of encoded.blocks) blocks.write(places[fileBlock], bytes);
      inode.size = encoded.blockCount * BLOCK_BYTES;
      inode.flags = directory.names.hashed ? inode.flags | INODE_FLAG.index : inode.flags & ~INODE_FLAG.index;
    }
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
