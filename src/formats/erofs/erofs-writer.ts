import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString, EntryType } from "../../tree/entry.ts";
import type { FilesystemWriter, LayerBlocks, PayloadEntry, PayloadPlace } from "../../tree/filesystem-writer.ts";
import type { Change } from "../../tree/layer-changes.ts";
import { quoted } from "../../tree/path.ts";
import { findCleared, findNode, findRemoved, resolveDirectory } from "../../tree/resolve.ts";
import { keptXattrs } from "../../tree/xattr.ts";
import { MAX_CHUNKS, shapeChunks, type DeviceRun } from "./chunk-map.ts";
import { ErofsTree, IMPLIED_DIRECTORY } from "./erofs-tree.ts";
import { encodeDevice, KIND_OF } from "./inode.ts";
import type { InodeFields } from "./inode-table.ts";
import { BLOCK_BYTES } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";
import { LivePayload } from "./live-payload.ts";
import { MetadataImage, type VolumeName } from "./metadata-image.ts";
import { openTree } from "./open-tree.ts";

export interface FormatOptions {
  /** Size of the device; a multiple of 4096. */
  readonly bytes: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
}

/** What a new filesystem uses: the superblock. */
const NEW_BLOCKS = 1;
const MIN_BYTES = 16 * 2 ** 20;
/** Block numbers have 32 bits, and the last one means that there is no block. */
const MAX_BLOCKS = 2 ** 32 - 1;

/** Where a volume stands between two layers. */
interface Volume {
  readonly name: VolumeName;
  readonly deviceBlocks: number;
  readonly tree: ErofsTree;
  /** Everything behind it is free. */
  readonly usedBlocks: number;
}

/**
 * An EROFS filesystem that grows layer by layer. Each layer ends with the metadata of the whole tree, over the data of all
 * layers so far.
 */
export class ErofsWriter implements FilesystemWriter {
  readonly #volumeName: VolumeName;
  readonly #deviceBlocks: number;
  readonly #tree: ErofsTree;
  #usedBlocks: number;
  /** Whether the tree is not the one that the device has. */
  #changed: boolean;
  #firstPayloadBlock = 0;
  #payloadBlocks = 0;
  /** The directory that the entry before was put into; archives list directories in one go. */
  #lastParent: { readonly path: ByteString; readonly number: number } | undefined;
  #image: MetadataImage | undefined;

  private constructor({ name, deviceBlocks, tree, usedBlocks }: Volume) {
    this.#volumeName = name;
    this.#deviceBlocks = deviceBlocks;
    this.#tree = tree;
    this.#usedBlocks = usedBlocks;
    this.#changed = usedBlocks === NEW_BLOCKS;
  }

  /** A new filesystem. */
  static format({ bytes, uuid }: FormatOptions): ErofsWriter {
    const deviceBlocks = bytes / BLOCK_BYTES;
    if (!Number.isSafeInteger(deviceBlocks) || bytes < MIN_BYTES)
      throw unsupported(`a filesystem of ${bytes} bytes: expected a multiple of ${BLOCK_BYTES}, at least ${MIN_BYTES}`);
    if (deviceBlocks > MAX_BLOCKS) throw unsupported(`a filesystem of ${bytes} bytes: expected at most ${MAX_BLOCKS * BLOCK_BYTES}`);
    const tree = new ErofsTree();
    tree.setRoot(IMPLIED_DIRECTORY);
    return new ErofsWriter({ name: { uuid, volumeName: new Uint8Array(16) }, deviceBlocks, tree, usedBlocks: NEW_BLOCKS });
  }

  /** Continues a filesystem, reading its metadata only. */
  static async open(source: ByteSource): Promise<ErofsWriter> {
    const { superblock, tree } = await openTree(source);
    const { uuid, volumeName, blocks } = superblock.fields;
    const deviceBlocks = Math.min(Math.floor(source.size / BLOCK_BYTES), MAX_BLOCKS);
    return new ErofsWriter({ name: { uuid, volumeName }, deviceBlocks, tree, usedBlocks: Math.max(NEW_BLOCKS, blocks) });
  }

  beginLayer(payloadBlocks: number): void {
    this.#image = undefined;
    this.#firstPayloadBlock = this.#usedBlocks;
    this.#payloadBlocks = payloadBlocks;
    this.#checkRoom(this.#firstPayloadBlock + payloadBlocks);
  }

  #checkRoom(endBlock: number): void {
    if (endBlock > this.#deviceBlocks)
      throw unsupported(
        `the filesystem of ${this.#deviceBlocks} blocks is full: ${endBlock} blocks of 4096 bytes are needed; give it more with --vsize`,
      );
  }

  apply(change: Change<PayloadEntry>): void {
    if (change.kind === "put") {
      this.#changed = true;
      this.#put(change.entry);
      return;
    }
    this.#lastParent = undefined;
    if (change.kind === "remove") {
      const found = findRemoved(this.#tree, change);
      if (!found) return;
      this.#tree.remove(found);
    } else {
      const directory = findCleared(this.#tree, change);
      if (directory === undefined) return;
      this.#tree.clear(directory);
    }
    this.#changed = true;
  }

  finishLayer(): LayerBlocks {
    this.#lastParent = undefined;
    if (!this.#changed) return { payload: [], metadata: [] };
    this.#changed = false;
    const image = new MetadataImage(this.#tree, this.#volumeName, this.#firstPayloadBlock + this.#payloadBlocks, (end) =>
      this.#checkRoom(end),
    );
    this.#image = image;
    this.#usedBlocks = image.endBlock;
    return { payload: this.#livePayload(), metadata: image.blocks() };
  }

  metadataBlock(block: number): Uint8Array {
    if (!this.#image) throw new RangeError("metadata blocks are there between finishLayer and the next beginLayer");
    return this.#image.block(block);
  }

  /** The payload that files of the finished tree refer to. */
  #livePayload(): PayloadPlace[] {
    const live = new LivePayload(this.#firstPayloadBlock, this.#payloadBlocks);
    const { inodes } = this.#tree;
    for (let number = 0; number < inodes.end; number++) {
      if (inodes.links(number) === 0 || (inodes.mode(number) & FILE_KIND.mask) !== FILE_KIND.file) continue;
      const runs = this.#tree.runs(number);
      if (runs) for (const { block, blocks } of runs) live.add(block, blocks);
      else live.add(inodes.data(number), Math.ceil(inodes.size(number) / BLOCK_BYTES));
    }
    return live.places();
  }

  #put(entry: PayloadEntry): void {
    if (entry.path === "") {
      this.#putRoot(entry);
      return;
    }
    const target = entry.type === "hardlink" ? this.#linkedInode(entry) : undefined;
    const slash = entry.path.lastIndexOf("/");
    const parent = this.#parentOf(entry.path, slash);
    const name = entry.path.slice(slash + 1);
    const existing = this.#tree.lookup(parent, name);
    if (entry.type === "directory" && existing !== undefined && this.#tree.kind(existing) === "directory") {
      this.#tree.inodes.set(existing, this.#fieldsOf(entry, entry.type));
    } else if (target === undefined || target !== existing) {
      this.#replace(parent, name, existing, target ?? this.#newInode(entry));
    }
  }

  #putRoot(entry: PayloadEntry): void {
    if (entry.type !== "directory") throw corrupt(`the archive's root entry is a ${entry.type}, expected a directory`);
    this.#tree.setRoot(this.#fieldsOf(entry, entry.type));
  }

  /** What is replaced goes last: it may be the directory that a hard link's target lies in. */
  #replace(parent: number, name: ByteString, existing: number | undefined, number: number): void {
    if (existing === undefined) {
      this.#tree.insert(parent, name, number);
      return;
    }
    if (this.#tree.kind(existing) !== "other") this.#lastParent = undefined;
    this.#tree.inodes.addLink(number);
    this.#tree.remove({ parent, name, node: existing });
    this.#tree.insert(parent, name, number);
    this.#tree.inodes.removeLink(number);
  }

  #linkedInode(entry: PayloadEntry): number {
    const target = findNode(this.#tree, entry.link)?.node;
    if (target === undefined) throw corrupt(`hard link ${quoted(entry.path)} points to ${quoted(entry.link)}, which does not exist`);
    if (this.#tree.kind(target) === "directory")
      throw corrupt(`hard link ${quoted(entry.path)} points to the directory ${quoted(entry.link)}`);
    return target;
  }

  /** The directory for a path's last element, which begins behind `slash`; directories that are missing on the way are made. */
  #parentOf(path: ByteString, slash: number): number {
    const last = this.#lastParent;
    if (last && last.path.length === Math.max(0, slash) && path.startsWith(last.path)) return last.number;
    const parent = slash < 0 ? "" : path.slice(0, slash);
    const resolved = resolveDirectory(this.#tree, parent);
    let number = resolved.directory;
    for (const name of resolved.missing) {
      const child = this.#tree.addDirectory(IMPLIED_DIRECTORY);
      this.#tree.insert(number, name, child);
      number = child;
    }
    this.#lastParent = { path: parent, number };
    return number;
  }

  #newInode(entry: PayloadEntry): number {
    const { type } = entry;
    if (type === "hardlink") throw corrupt(`hard link ${quoted(entry.path)} has no inode of its own`);
    const fields = this.#fieldsOf(entry, type);
    if (type === "directory") return this.#tree.addDirectory(fields);
    if (type === "symlink") return this.#tree.addSymlink(fields, checkedTarget(entry));
    if (type === "file") return this.#newFile(fields, entry);
    return this.#tree.addOther(fields);
  }

  #newFile(fields: InodeFields, entry: PayloadEntry): number {
    const number = this.#tree.addFile({ ...fields, size: entry.size }, this.#placed(entry));
    const runs = this.#tree.runs(number);
    const chunks = runs === undefined ? 0 : shapeChunks(runs, entry.size).count;
    if (chunks > MAX_CHUNKS)
      throw unsupported(
        `${quoted(entry.path)} has ${entry.size} bytes with holes that need a map of ${chunks} chunks, at most ${MAX_CHUNKS} are written`,
      );
    return number;
  }

  *#placed(entry: PayloadEntry): Generator<DeviceRun> {
    let block = this.#firstPayloadBlock + entry.payloadBlock;
    for (const { fileBlock, blocks } of entry.runs) {
      yield { fileBlock, blocks, block };
      block += blocks;
    }
  }

  #fieldsOf(entry: PayloadEntry, type: Exclude<EntryType, "hardlink">): InodeFields {
    const { mode, uid, gid, mtime } = entry;
    const xattrSet = this.#tree.xattrSets.add(keptXattrs(type, entry.xattrs), quoted(entry.path));
    const data = type === "character" || type === "block" ? encodeDevice(entry.major, entry.minor) : 0;
    return { mode: KIND_OF[type] | mode, uid, gid, size: 0, mtime, xattrSet, data };
  }
}

function checkedTarget({ path, link }: PayloadEntry): ByteString {
  if (link.length === 0 || link.length >= BLOCK_BYTES)
    throw unsupported(`symlink ${quoted(path)} has a target of ${link.length} bytes, expected 1–${BLOCK_BYTES - 1}`);
  return link;
}
