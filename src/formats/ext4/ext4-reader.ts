import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { BlockReader } from "./block-reader.ts";
import { indexNodeChecksum, inodeChecksum, inodeSeed, xattrBlockChecksum } from "./checksum.ts";
import { LEAF_TAIL_BYTES, readDirectoryBlock, recordLength, type DirectoryEntry } from "./directory-block.ts";
import { readBlockMap } from "./block-map.ts";
import { extentTailOffset, parseExtentNode, type Extent } from "./extent-tree.ts";
import { decodeGroups, type Group } from "./group-descriptor.ts";
import { decodeInode, fastSymlinkTarget, isFastSymlink, isKind, type Inode } from "./inode.ts";
import { INODE_FLAG, SUPERBLOCK_OFFSET, superblockStruct } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";
import { Ext4File } from "./ext4-file.ts";
import { parseSuperblock, type Superblock } from "./superblock.ts";
import { fromDiskValue, parseInodeXattrs, parseXattrBlock, type StoredXattr } from "./xattr.ts";

/** An attribute value in an inode of its own is at most this long (the kernel's XATTR_SIZE_MAX). */
const MAX_XATTR_BYTES = 65536;
const MAX_SYMLINK_BYTES = 4096;
const MAX_DIRECTORY_BYTES = 2 ** 31;

/** Reads an ext4 filesystem from any source, checking every checksum that the filesystem has. */
export class Ext4Reader {
  readonly name: string;
  readonly superblock: Superblock;
  readonly groups: readonly Group[];
  readonly #blocks: BlockReader;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, superblock: Superblock, groups: readonly Group[], blocks: BlockReader) {
    this.name = source.name;
    this.#source = source;
    this.superblock = superblock;
    this.groups = groups;
    this.#blocks = blocks;
  }

  /** Opens a filesystem. Throws `CORRUPT` or `UNSUPPORTED`, naming the field. */
  static async open(source: ByteSource): Promise<Ext4Reader> {
    if (source.size < SUPERBLOCK_OFFSET + superblockStruct.size)
      throw corrupt(`${source.name}: ${source.size} bytes are too few for an ext4 filesystem`);
    const bytes = await source.read(SUPERBLOCK_OFFSET, superblockStruct.size);
    const superblock = parseSuperblock(bytes, source.size, source.name);
    const tableOffset = (superblock.fields.firstDataBlock + 1) * superblock.blockBytes;
    const table = await source.read(tableOffset, superblock.groups * superblock.descriptorBytes);
    const blocks = new BlockReader(source, superblock.blockBytes);
    return new Ext4Reader(source, superblock, decodeGroups(table, superblock, source.name), blocks);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  /** One metadata block. */
  async block(block: number): Promise<Uint8Array> {
    if (block >= this.superblock.blocks) throw corrupt(`${this.name}: block ${block} is beyond the last, ${this.superblock.blocks - 1}`);
    return await this.#blocks.read(block);
  }

  /** Byte offset of an inode's record on the device. */
  inodeOffset(number: number): number {
    const { inodesPerGroup, inodeBytes, blockBytes, fields } = this.superblock;
    if (number < 1 || number > fields.inodesCount) throw corrupt(`${this.name}: inode ${number} is outside of 1–${fields.inodesCount}`);
    const group = this.groups[Math.floor((number - 1) / inodesPerGroup)];
    return group.inodeTable * blockBytes + ((number - 1) % inodesPerGroup) * inodeBytes;
  }

  async #record(number: number): Promise<Uint8Array> {
    const { inodeBytes, blockBytes } = this.superblock;
    const offset = this.inodeOffset(number);
    const block = await this.block(Math.floor(offset / blockBytes));
    return block.subarray(offset % blockBytes, (offset % blockBytes) + inodeBytes);
  }

  async inode(number: number): Promise<Inode> {
    const record = await this.#record(number);
    const inode = decodeInode(record);
    this.#checkInode(number, record, inode);
    return inode;
  }

  #checkInode(number: number, record: Uint8Array, inode: Inode): void {
    if (!this.superblock.hasMetadataCsum) return;
    const view = new DataView(record.buffer, record.byteOffset, record.length);
    const wide = record.length > 128 && inode.extraIsize >= 4;
    const stored = view.getUint16(0x7c, true) + (wide ? view.getUint16(0x82, true) * 65536 : 0);
    const found = inodeChecksum(this.#seedOf(number, inode), record);
    if (stored !== (wide ? found : found & 0xffff))
      throw corrupt(`${this.name}: inode ${number} has checksum 0x${stored.toString(16)}, expected 0x${found.toString(16)}`);
  }

  #seedOf(number: number, inode: Inode): number {
    return inodeSeed(this.superblock.seed, number, inode.generation);
  }

  /** Where a file's blocks are. Also lists the blocks of the tree itself, through `visitNode`. */
  async extents(number: number, inode: Inode, visitNode?: (block: number) => void): Promise<Extent[]> {
    if (inode.flags & INODE_FLAG.inlineData) throw unsupported(`${this.name}: inode ${number} keeps its data inline`);
    const nodes = new Set<number>();
    const visit = (block: number): void => {
      if (nodes.has(block)) throw corrupt(`${this.name}: inode ${number} refers to block ${block} of its block tree twice`);
      nodes.add(block);
      visitNode?.(block);
    };
    if (!(inode.flags & INODE_FLAG.extents)) {
      const read = async (block: number): Promise<Uint8Array> => await this.block(block);
      const map = { blockBytes: this.superblock.blockBytes, deviceBlocks: this.superblock.blocks, where: `${this.name}: inode ${number}` };
      return await readBlockMap(inode, map, read, visit);
    }
    const found: Extent[] = [];
    await this.#walkExtents(number, inode, inode.block, -1, found, visit);
    return found;
  }

  async #walkExtents(
    number: number,
    inode: Inode,
    bytes: Uint8Array,
    depth: number,
    found: Extent[],
    visitNode: (block: number) => void,
  ): Promise<void> {
    const where = `${this.name}: inode ${number}`;
    const node = parseExtentNode(bytes, where);
    if (depth >= 0 && node.depth !== depth) throw corrupt(`${where}: extent node of depth ${node.depth}, expected ${depth}`);
    for (const extent of node.extents) {
      const last = found.at(-1);
      if (last && extent.fileBlock < last.fileBlock + last.blocks)
        throw corrupt(`${where}: extents overlap at file block ${extent.fileBlock}`);
      if (extent.block + extent.blocks > this.superblock.blocks)
        throw corrupt(`${where}: extent ends at block ${extent.block + extent.blocks}`);
      found.push(extent);
    }
    for (const child of node.children) {
      visitNode(child.block);
      const block = await this.block(child.block);
      this.#checkExtentBlock(number, inode, block);
      await this.#walkExtents(number, inode, block, node.depth - 1, found, visitNode);
    }
  }

  #checkExtentBlock(number: number, inode: Inode, block: Uint8Array): void {
    if (!this.superblock.hasMetadataCsum) return;
    const tail = extentTailOffset(block.length);
    const stored = new DataView(block.buffer, block.byteOffset).getUint32(tail, true);
    const found = crc32cRaw(this.#seedOf(number, inode), block, 0, tail);
    if (stored !== found)
      throw corrupt(
        `${this.name}: extent block of inode ${number} has checksum 0x${stored.toString(16)}, expected 0x${found.toString(16)}`,
      );
  }

  /** A file's content. */
  async file(number: number): Promise<ByteSource> {
    const inode = await this.inode(number);
    if (!isKind(inode, FILE_KIND.file)) throw corrupt(`${this.name}: inode ${number} is not a regular file`);
    return new Ext4File(
      this.#source,
      inode.size,
      await this.extents(number, inode),
      this.superblock.blockBytes,
      `${this.name}: inode ${number}`,
    );
  }

  /** The blocks of a directory, by their number within it, holes left out. */
  async directoryBlocks(number: number, inode: Inode): Promise<{ fileBlock: number; block: number; bytes: Uint8Array }[]> {
    if (!isKind(inode, FILE_KIND.directory)) throw corrupt(`${this.name}: inode ${number} is not a directory`);
    if (inode.size > MAX_DIRECTORY_BYTES) throw corrupt(`${this.name}: directory ${number} has ${inode.size} bytes`);
    const found: { fileBlock: number; block: number; bytes: Uint8Array }[] = [];
    const blockCount = Math.ceil(inode.size / this.superblock.blockBytes);
    const seen = new Set<number>();
    for (const extent of await this.extents(number, inode)) {
      for (let index = 0; index < extent.blocks && extent.fileBlock + index < blockCount; index++) {
        if (seen.has(extent.block + index)) throw corrupt(`${this.name}: directory ${number} has block ${extent.block + index} twice`);
        seen.add(extent.block + index);
        const bytes = await this.block(extent.block + index);
        this.#checkDirectoryBlock(number, inode, bytes);
        found.push({ fileBlock: extent.fileBlock + index, block: extent.block + index, bytes });
      }
    }
    return found;
  }

  #checkDirectoryBlock(number: number, inode: Inode, bytes: Uint8Array): void {
    if (!this.superblock.hasMetadataCsum) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const seed = this.#seedOf(number, inode);
    const tail = bytes.length - LEAF_TAIL_BYTES;
    const countOffset = indexCountOffset(bytes);
    if (inode.flags & INODE_FLAG.index && countOffset !== undefined) {
      const limit = view.getUint16(countOffset, true);
      const count = view.getUint16(countOffset + 2, true);
      const at = countOffset + limit * 8 + 4;
      if (count > limit || at + 4 > bytes.length)
        throw corrupt(`${this.name}: index node of directory ${number} counts ${count} of ${limit} entries`);
      this.#compareDirectory(number, view.getUint32(at, true), indexNodeChecksum(seed, bytes, countOffset, count, limit));
    } else {
      this.#compareDirectory(number, view.getUint32(tail + 8, true), crc32cRaw(seed, bytes, 0, tail));
    }
  }

  #compareDirectory(number: number, stored: number, found: number): void {
    if (stored !== found)
      throw corrupt(`${this.name}: block of directory ${number} has checksum 0x${stored.toString(16)}, expected 0x${found.toString(16)}`);
  }

  /** All names in a directory but `.` and `..`. */
  async list(number: number): Promise<DirectoryEntry[]> {
    const inode = await this.inode(number);
    const found: DirectoryEntry[] = [];
    for (const { bytes } of await this.directoryBlocks(number, inode)) {
      readDirectoryBlock(bytes, `${this.name}: directory ${number}`, (entry) => {
        if (entry.name !== "." && entry.name !== "..") found.push(entry);
      });
    }
    return found;
  }

  /** A symlink's target. */
  async linkTarget(number: number): Promise<ByteString> {
    const inode = await this.inode(number);
    if (!isKind(inode, FILE_KIND.symlink)) throw corrupt(`${this.name}: inode ${number} is not a symlink`);
    if (isFastSymlink(inode)) return fastSymlinkTarget(inode);
    if (inode.size > MAX_SYMLINK_BYTES) throw corrupt(`${this.name}: symlink ${number} has a target of ${inode.size} bytes`);
    const extents = await this.extents(number, inode);
    const target = new Ext4File(this.#source, inode.size, extents, this.superblock.blockBytes, `${this.name}: symlink ${number}`);
    return Buffer.from(await target.read(0, inode.size)).toString("latin1");
  }

  /** The stored attributes of an inode: those in its record, then those in its block. */
  async storedXattrs(number: number, inode: Inode): Promise<StoredXattr[]> {
    const where = `${this.name}: inode ${number}`;
    const record = await this.#record(number);
    const found = record.length > 128 ? parseInodeXattrs(record.subarray(128 + inode.extraIsize), where) : [];
    if (inode.xattrBlock === 0) return found;
    const block = await this.block(inode.xattrBlock);
    if (this.superblock.hasMetadataCsum) {
      const stored = new DataView(block.buffer, block.byteOffset).getUint32(16, true);
      const sum = xattrBlockChecksum(this.superblock.seed, inode.xattrBlock, block);
      if (stored !== sum) throw corrupt(`${where}: attribute block has checksum 0x${stored.toString(16)}, expected 0x${sum.toString(16)}`);
    }
    return found.concat(parseXattrBlock(block, where));
  }

  /** Extended attributes by full name, sorted; values as system calls show them. */
  async xattrs(number: number): Promise<Map<ByteString, Uint8Array>> {
    const stored = await this.storedXattrs(number, await this.inode(number));
    const values = await Promise.all(
      stored.map(async (xattr) => [xattr.name, fromDiskValue(xattr.name, await this.#xattrValue(xattr))] as const),
    );
    return new Map(values.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }

  async #xattrValue(xattr: StoredXattr): Promise<Uint8Array> {
    if (xattr.valueInode === 0) return xattr.value;
    if (xattr.valueBytes > MAX_XATTR_BYTES) throw corrupt(`${this.name}: attribute ${xattr.name} has ${xattr.valueBytes} bytes`);
    const inode = await this.inode(xattr.valueInode);
    if (!(inode.flags & INODE_FLAG.eaInode)) throw corrupt(`${this.name}: inode ${xattr.valueInode} does not hold an attribute's value`);
    const extents = await this.extents(xattr.valueInode, inode);
    const value = new Ext4File(this.#source, inode.size, extents, this.superblock.blockBytes, `${this.name}: attribute ${xattr.name}`);
    const bytes = await value.read(0, xattr.valueBytes);
    // The inode keeps the value's checksum where others have their access time.
    const found = crc32cRaw(this.superblock.seed, bytes);
    if (found !== inode.atime.seconds >>> 0) {
      throw corrupt(
        `${this.name}: value of attribute ${xattr.name} has checksum 0x${(inode.atime.seconds >>> 0).toString(16)}, expected 0x${found.toString(16)}`,
      );
    }
    return bytes;
  }
}

/** Where an index node keeps its limit and count; undefined for a leaf. A root starts with `.` and `..`. */
function indexCountOffset(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (recordLength(view.getUint16(4, true), bytes.length) === bytes.length && view.getUint32(0, true) === 0) return 8;
  const isRoot =
    view.getUint16(4, true) === 12 && view.getUint16(16, true) === bytes.length - 12 && view.getUint32(24, true) === 0 && bytes[29] === 8;
  return isRoot ? 32 : undefined;
}
