import { Directory, type DirectoryOptions } from "./directory.ts";
import type { Extent } from "./extent-tree.ts";
import type { Inode } from "./inode.ts";
import { BLOCK_BYTES, COMPAT, INODE_FLAG, MAX_LINKS } from "./layout.ts";
import type { Volume } from "./volume.ts";

/** Names kept in memory at a time; beyond that the directories used longest ago are written and dropped. */
const MAX_NAMES = 300_000;

/** A directory with the part of its inode that follows from its content. */
export interface OpenDirectory {
  readonly names: Directory;
  /** Its own two links and one for each child directory; `undefined` when there are too many to count. */
  links: number | undefined;
}

/** The directories in use during a layer. */
export class DirectoryStore {
  readonly #volume: Volume;
  /** Least recently used first. */
  readonly #open = new Map<number, OpenDirectory>();

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  /** A directory's names and links, read from its blocks on first use. */
  get(number: number): OpenDirectory {
    const known = this.#open.get(number);
    if (known) {
      this.#open.delete(number);
      this.#open.set(number, known);
      return known;
    }
    const inode = this.#volume.inodes.read(number);
    const blocks = new Map<number, Uint8Array>();
    for (const extent of this.#volume.extents(number, inode).extents) {
      for (let index = 0; index < extent.blocks; index++) blocks.set(extent.fileBlock + index, this.#volume.blocks.get(extent.block + index));
    }
    const names = Directory.load(number, blocks, (inode.flags & INODE_FLAG.index) !== 0, this.#options(number, inode));
    const directory: OpenDirectory = { names, links: inode.links === 1 ? undefined : inode.links };
    this.#add(number, directory);
    return directory;
  }

  /** Starts an empty directory whose inode has been written. */
  create(number: number, parent: number): void {
    const names = Directory.create(number, parent, this.#options(number, this.#volume.inodes.read(number)));
    this.#add(number, { names, links: 2 });
  }

  #add(number: number, directory: OpenDirectory): void {
    this.#open.set(number, directory);
    let names = 0;
    for (const { names: open } of this.#open.values()) names += open.size + 1;
    if (names > MAX_NAMES) this.#evict(names);
  }

  #evict(total: number): void {
    let names = total;
    for (const [number, directory] of this.#open) {
      if (names <= MAX_NAMES / 2) return;
      this.#write(number, directory);
      this.#open.delete(number);
      names -= directory.names.size + 1;
    }
  }

  #options(number: number, inode: Inode): DirectoryOptions {
    const { superblock } = this.#volume;
    const hashed = (superblock.fields.compat & COMPAT.dirIndex) !== 0;
    return { blockBytes: BLOCK_BYTES, hash: hashed ? superblock.hash : undefined, seed: this.#volume.seedOf(number, inode) };
  }

  /** Frees a directory's blocks; the caller frees its inode. */
  delete(number: number, inode: Inode): void {
    this.#open.delete(number);
    const { extents, nodes } = this.#volume.extents(number, inode);
    for (const extent of extents) for (let index = 0; index < extent.blocks; index++) this.#volume.release(extent.block + index);
    for (const block of nodes) this.#volume.release(block);
  }

  /** Writes every changed directory and forgets them all. */
  flush(): void {
    for (const [number, directory] of [...this.#open].toSorted(([a], [b]) => a - b)) this.#write(number, directory);
    this.#open.clear();
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
      for (const [fileBlock, bytes] of encoded.blocks) blocks.write(places[fileBlock]!, bytes);
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
