import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString, Entry, EntryType, Timespec } from "../../tree/entry.ts";
import type { FilesystemWriter, LayerBlocks, PayloadEntry } from "../../tree/filesystem-writer.ts";
import type { Change } from "../../tree/layer-changes.ts";
import { quoted } from "../../tree/path.ts";
import { findCleared, findNode, findRemoved, resolveDirectory, type FoundNode, type TreeView } from "../../tree/resolve.ts";
import { keptXattrs } from "../../tree/xattr.ts";
import { DirectoryStore } from "./directory-store.ts";
import { NO_EXTENTS, type Extent } from "./extent-tree.ts";
import { formatVolume, type FormatOptions } from "./format.ts";
import { encodeDevice, fastSymlinkTarget, isFastSymlink, isKind, type Inode } from "./inode.ts";
import { NO_XATTRS } from "./inode-table.ts";
import { BLOCK_BYTES, EXTRA_ISIZE, INODE_FLAG, MAX_LINKS, RO_COMPAT, ROOT_INODE } from "./layout.ts";
import { DIRENT_TYPE, FILE_KIND } from "../../tree/file-kind.ts";
import { openVolume } from "./open-volume.ts";
import { PayloadPlaces } from "./payload-places.ts";
import type { Volume } from "./volume.ts";
import { freeXattrs, storeXattrs } from "./xattr-store.ts";

/** A directory by the path that leads to it. */
interface ReachedDirectory {
  readonly path: ByteString;
  readonly inode: number;
}

const EPOCH: Timespec = { seconds: 0, nanoseconds: 0 };
const FAST_SYMLINK_BYTES = 60;
/** The 60 bytes of an inode that has nothing to keep there. */
const NO_BLOCK = new Uint8Array(60);
/** Block numbers within a file have 32 bits, and the last one is not used. */
const MAX_FILE_BYTES = (2 ** 32 - 1) * BLOCK_BYTES;

const KIND_OF: Readonly<Record<Exclude<EntryType, "hardlink">, number>> = {
  file: FILE_KIND.file,
  directory: FILE_KIND.directory,
  symlink: FILE_KIND.symlink,
  character: FILE_KIND.character,
  block: FILE_KIND.block,
  fifo: FILE_KIND.fifo,
};

/** An ext4 filesystem that grows layer by layer. */
export class Ext4Writer implements FilesystemWriter {
  readonly #volume: Volume;
  readonly #directories: DirectoryStore;
  readonly #tree: TreeView<number>;
  /** Payload of this layer's files. */
  readonly #payload = new PayloadPlaces();
  /** The directory that the entry before was put into; archives list directories in one go. */
  #lastParent: ReachedDirectory | undefined;
  /** The directories on the way to it that have no symlink in their paths, outermost first. */
  readonly #chain: ReachedDirectory[] = [];
  #firstPayloadBlock = 0;

  private constructor(volume: Volume, maxNames?: number) {
    this.#volume = volume;
    this.#directories = new DirectoryStore(volume, maxNames);
    this.#tree = {
      root: ROOT_INODE,
      lookup: (directory, name) => this.#directories.lookup(directory, name),
      kind: (node) => {
        const kind = volume.inodes.mode(node) & FILE_KIND.mask;
        return kind === FILE_KIND.directory ? "directory" : kind === FILE_KIND.symlink ? "symlink" : "other";
      },
      linkTarget: (node) => this.#linkTarget(node),
    };
  }

  /** A new filesystem; its blocks are part of the first layer. `maxNames` bounds the names kept in memory. */
  static format(options: FormatOptions, { maxNames }: { readonly maxNames?: number } = {}): Ext4Writer {
    const writer = new Ext4Writer(formatVolume(options), maxNames);
    writer.#makeDirectory(ROOT_INODE, ROOT_INODE, 0o755);
    return writer;
  }

  /** Continues a filesystem, reading its metadata only. */
  static async open(source: ByteSource): Promise<Ext4Writer> {
    return new Ext4Writer(await openVolume(source));
  }

  beginLayer(payloadBlocks: number): void {
    this.#firstPayloadBlock = this.#volume.beginLayer(payloadBlocks);
  }

  apply(change: Change<PayloadEntry>): void {
    this.#volume.blocks.pack();
    if (change.kind === "put") {
      this.#put(change.entry);
      return;
    }
    this.#forgetWay();
    if (change.kind === "remove") {
      const found = findRemoved(this.#tree, change);
      if (found) this.#remove(found);
    } else {
      const directory = findCleared(this.#tree, change);
      if (directory !== undefined) this.#clear(directory);
    }
  }

  finishLayer(): LayerBlocks {
    this.#forgetWay();
    this.#directories.flush();
    this.#volume.settle();
    return { payload: this.#payload.take(), metadata: this.#coldFirst(this.#volume.blocks.takeDirty()) };
  }

  metadataBlock(block: number): Uint8Array {
    return this.#volume.blocks.peek(block);
  }

  /** Superblock, descriptors and the root directory are what a mount reads first: they go to the end. */
  #coldFirst(blocks: readonly number[]): number[] {
    const { superblock, inodes } = this.#volume;
    const root = this.#volume.extents(ROOT_INODE, inodes.read(ROOT_INODE)).extents;
    const descriptorsEnd = 1 + Math.ceil((superblock.groups * superblock.descriptorBytes) / BLOCK_BYTES);
    const hot = new Set([inodes.blockOf(ROOT_INODE), ...root.map((extent) => extent.block)]);
    const isHot = (block: number): boolean => block < descriptorsEnd || hot.has(block);
    const fixed = blocks.filter((block) => block < this.#firstPayloadBlock && !isHot(block));
    const others = blocks.filter((block) => block >= this.#firstPayloadBlock && !isHot(block));
    return [...others, ...fixed, ...blocks.filter(isHot)];
  }

  #put(entry: PayloadEntry): void {
    if (entry.path === "") {
      this.#putRoot(entry);
      return;
    }
    const slash = entry.path.lastIndexOf("/");
    const parent = this.#parentOf(entry.path, slash);
    const name = entry.path.slice(slash + 1);
    const existing = this.#directories.lookup(parent, name);
    if (entry.type === "hardlink") this.#putHardLink(parent, name, existing, entry);
    else if (entry.type === "directory") this.#putDirectory(parent, name, existing, entry);
    else this.#putLeaf(parent, name, existing, entry, entry.type);
  }

  #putRoot(entry: PayloadEntry): void {
    if (entry.type !== "directory") throw corrupt(`the archive's root entry is a ${entry.type}, expected a directory`);
    this.#setMetadata(ROOT_INODE, entry);
  }

  /** The directory for a path's last element, which begins behind `slash`; directories that are missing on the way are made. */
  #parentOf(path: ByteString, slash: number): number {
    const last = this.#lastParent;
    if (last && last.path.length === Math.max(0, slash) && path.startsWith(last.path)) return last.inode;
    const parent = slash < 0 ? "" : path.slice(0, slash);
    const inode = this.#reach(parent) ?? this.#makeParents(parent);
    this.#lastParent = { path: parent, inode };
    return inode;
  }

  /** The directory at a path that consists of nothing but directories, from the nearest that is known. */
  #reach(path: ByteString): number | undefined {
    const chain = this.#chain;
    while (chain.length > 0 && !isWithin(path, chain[chain.length - 1].path)) chain.pop();
    let { path: reached, inode } = chain.at(-1) ?? ROOT;
    while (reached.length < path.length) {
      const from = reached === "" ? 0 : reached.length + 1;
      const slash = path.indexOf("/", from);
      const end = slash < 0 ? path.length : slash;
      const child = this.#directories.lookup(inode, path.slice(from, end));
      if (child === undefined || this.#tree.kind(child) !== "directory") return undefined;
      reached = path.slice(0, end);
      inode = child;
      chain.push({ path: reached, inode });
    }
    return inode;
  }

  #makeParents(path: ByteString): number {
    const resolved = resolveDirectory(this.#tree, path);
    let inode = resolved.directory;
    for (const name of resolved.missing) {
      const child = this.#volume.inodes.allocate(true);
      this.#makeDirectory(child, inode, 0o755);
      this.#insert(inode, name, child, FILE_KIND.directory);
      inode = child;
    }
    return inode;
  }

  #forgetWay(): void {
    this.#lastParent = undefined;
    this.#chain.length = 0;
  }

  #putHardLink(parent: number, name: ByteString, existing: number | undefined, entry: PayloadEntry): void {
    const target = findNode(this.#tree, entry.link)?.node;
    if (target === undefined) throw corrupt(`hard link ${quoted(entry.path)} points to ${quoted(entry.link)}, which does not exist`);
    if (target === existing) return;
    const inode = this.#volume.inodes.read(target);
    if (isKind(inode, FILE_KIND.directory)) throw corrupt(`hard link ${quoted(entry.path)} points to the directory ${quoted(entry.link)}`);
    if (inode.links >= MAX_LINKS) throw unsupported(`${quoted(entry.link)} has ${inode.links} hard links; ext4 holds at most ${MAX_LINKS}`);
    inode.links++;
    this.#volume.inodes.write(target, inode, this.#volume.inodes.xattrArea(target));
    if (existing !== undefined) this.#remove({ parent, name, node: existing });
    this.#insert(parent, name, target, inode.mode & FILE_KIND.mask);
  }

  #putDirectory(parent: number, name: ByteString, existing: number | undefined, entry: PayloadEntry): void {
    if (existing !== undefined && this.#tree.kind(existing) === "directory") {
      this.#setMetadata(existing, entry);
      return;
    }
    if (existing !== undefined) this.#remove({ parent, name, node: existing });
    const number = this.#volume.inodes.allocate(true);
    const inode = newInode(entry, FILE_KIND.directory);
    this.#write(number, inode, entry);
    this.#directories.create(number, parent);
    this.#insert(parent, name, number, FILE_KIND.directory);
  }

  #putLeaf(
    parent: number,
    name: ByteString,
    existing: number | undefined,
    entry: PayloadEntry,
    type: Exclude<EntryType, "hardlink">,
  ): void {
    if (existing !== undefined) this.#remove({ parent, name, node: existing });
    const number = this.#volume.inodes.allocate(false);
    const inode = newInode(entry, KIND_OF[type]);
    if (type === "character" || type === "block") inode.block = encodeDevice(entry.major, entry.minor);
    if (type === "symlink") this.#setTarget(number, inode, entry);
    const area = this.#storeXattrs(inode, entry);
    if (type === "file") this.#setData(number, inode, entry);
    this.#volume.inodes.write(number, inode, area);
    this.#insert(parent, name, number, KIND_OF[type]);
  }

  #setTarget(number: number, inode: Inode, entry: PayloadEntry): void {
    const { link } = entry;
    if (link.length === 0 || link.length >= BLOCK_BYTES) {
      throw unsupported(`symlink ${quoted(entry.path)} has a target of ${link.length} bytes, expected 1–${BLOCK_BYTES - 1}`);
    }
    inode.size = link.length;
    if (link.length < FAST_SYMLINK_BYTES) {
      inode.block = new Uint8Array(FAST_SYMLINK_BYTES);
      for (let at = 0; at < link.length; at++) inode.block[at] = link.charCodeAt(at);
      return;
    }
    inode.flags |= INODE_FLAG.extents;
    inode.block = NO_EXTENTS;
    this.#volume.setExtents(number, inode, this.#volume.store(Buffer.from(link, "latin1")));
  }

  /** Places a file's payload, and links the file to it. */
  #setData(number: number, inode: Inode, entry: PayloadEntry): void {
    if (entry.size > MAX_FILE_BYTES)
      throw unsupported(`${quoted(entry.path)} has ${entry.size} bytes; ext4 holds at most ${MAX_FILE_BYTES}`);
    const extents: Extent[] = [];
    let payloadBlock = entry.payloadBlock;
    for (const run of entry.runs) {
      let { fileBlock } = run;
      for (const { block, blocks } of this.#volume.allocator.allocate(run.blocks, this.#firstPayloadBlock + payloadBlock)) {
        extents.push({ fileBlock, blocks, block, unwritten: false });
        this.#payload.add({ block, payloadBlock, blocks });
        fileBlock += blocks;
        payloadBlock += blocks;
      }
    }
    inode.size = entry.size;
    if (entry.size >= 2 ** 31) this.#volume.superblock.fields.roCompat |= RO_COMPAT.largeFile;
    this.#volume.setExtents(number, inode, extents);
  }

  #storeXattrs(inode: Inode, entry: PayloadEntry): Uint8Array {
    if (entry.xattrs.size === 0 || entry.type === "hardlink") return NO_XATTRS;
    return storeXattrs(this.#volume, inode, keptXattrs(entry.type, entry.xattrs));
  }

  /** Writes a new directory's inode. */
  #write(number: number, inode: Inode, entry: PayloadEntry): void {
    this.#volume.inodes.write(number, inode, this.#storeXattrs(inode, entry));
  }

  /** Gives an existing directory the entry's owner, mode, times and attributes; its names stay. */
  #setMetadata(number: number, entry: PayloadEntry): void {
    const inode = this.#volume.inodes.read(number);
    freeXattrs(this.#volume, number, inode);
    const { atime, mtime, ctime, uid, gid } = entry;
    Object.assign(inode, { atime, mtime, ctime, uid, gid, mode: FILE_KIND.directory | entry.mode });
    this.#write(number, inode, entry);
  }

  #makeDirectory(number: number, parent: number, mode: number): void {
    const inode = newInode({ mode, uid: 0, gid: 0, atime: EPOCH, mtime: EPOCH, ctime: EPOCH }, FILE_KIND.directory);
    this.#volume.inodes.write(number, inode, NO_XATTRS);
    this.#directories.create(number, parent);
  }

  #insert(parent: number, name: ByteString, inode: number, kind: number): void {
    this.#directories.insert(parent, { name, inode, type: DIRENT_TYPE.get(kind) ?? 0 });
  }

  #clear(directory: number): void {
    for (const { name, inode } of this.#directories.entries(directory)) this.#remove({ parent: directory, name, node: inode });
  }

  /** Takes a name away, and what it stood for when that was its last. */
  #remove({ parent, name, node }: FoundNode<number>): void {
    const inode = this.#volume.inodes.read(node);
    const isDirectory = isKind(inode, FILE_KIND.directory);
    if (isDirectory || isKind(inode, FILE_KIND.symlink)) this.#forgetWay();
    if (isDirectory) this.#clear(node);
    this.#directories.remove(parent, name, isDirectory);
    if (!isDirectory && inode.links > 1) {
      inode.links--;
      this.#volume.inodes.write(node, inode, this.#volume.inodes.xattrArea(node));
      return;
    }
    this.#freeInode(node, inode, isDirectory);
  }

  #freeInode(number: number, inode: Inode, isDirectory: boolean): void {
    freeXattrs(this.#volume, number, inode);
    if (isDirectory) this.#directories.delete(number, inode);
    else if (inode.flags & INODE_FLAG.extents) this.#freeData(number, inode);
    else if (isKind(inode, FILE_KIND.file) && inode.sectors > 0)
      throw unsupported(`inode ${number} has a block map; only extents can be removed`);
    this.#volume.inodes.free(number, isDirectory);
  }

  #freeData(number: number, inode: Inode): void {
    const { extents, nodes } = this.#volume.extents(number, inode);
    const isMetadata = isKind(inode, FILE_KIND.symlink);
    for (const extent of extents) {
      if (isMetadata) {
        this.#volume.release(extent.block);
        continue;
      }
      this.#volume.allocator.free(extent);
      this.#payload.drop(extent);
    }
    for (const block of nodes) this.#volume.release(block);
  }

  #linkTarget(number: number): ByteString {
    const inode = this.#volume.inodes.read(number);
    if (isFastSymlink(inode)) return fastSymlinkTarget(inode);
    const [extent] = this.#volume.extents(number, inode).extents;
    if (!extent || inode.size > BLOCK_BYTES) throw corrupt(`symlink ${number} of ${inode.size} bytes has no block`);
    return this.#volume.blocks.get(extent.block).toString("latin1", 0, inode.size);
  }
}

const ROOT: ReachedDirectory = { path: "", inode: ROOT_INODE };

/** Whether a path is another one or lies below it. */
function isWithin(path: ByteString, directory: ByteString): boolean {
  return path.startsWith(directory) && (path.length === directory.length || path[directory.length] === "/");
}

type Owned = Pick<Entry, "mode" | "uid" | "gid" | "atime" | "mtime" | "ctime">;

function newInode(entry: Owned, kind: number): Inode {
  const hasExtents = kind === FILE_KIND.file || kind === FILE_KIND.directory;
  return {
    mode: kind | entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    size: 0,
    links: kind === FILE_KIND.directory ? 2 : 1,
    sectors: 0,
    flags: hasExtents ? INODE_FLAG.extents : 0,
    generation: 0,
    atime: entry.atime,
    mtime: entry.mtime,
    ctime: entry.ctime,
    xattrBlock: 0,
    version: 0,
    block: hasExtents ? NO_EXTENTS : NO_BLOCK,
    extraIsize: EXTRA_ISIZE,
    createTime: 0,
    createTimeExtra: 0,
  };
}
