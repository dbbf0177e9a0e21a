import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import type { DeviceExtent, FilesystemReader, NamedInode } from "../../tree/filesystem-reader.ts";
import { MAX_CHUNKS } from "./chunk-map.ts";
import { decodeDirectoryBlock } from "./directory.ts";
import { ErofsFile } from "./erofs-file.ts";
import { decodeInode, isExtended, type ErofsInode } from "./inode.ts";
import {
  CHUNK_BITS_MASK,
  CHUNK_INDEXES,
  compactInodeStruct,
  DATA_LAYOUT,
  extendedInodeStruct,
  NO_BLOCK,
  SLOT_BYTES,
  xattrEntryStruct,
} from "./layout.ts";
import { MetadataReader } from "./metadata-reader.ts";
import { readSuperblock, type Superblock } from "./superblock.ts";
import { decodeArea, decodeEntry, decodeEntryBytes, type Xattr } from "./xattr.ts";

const MAX_SYMLINK_BYTES = 4096;
const MAX_DIRECTORY_BYTES = 2 ** 31;
/** Inode numbers with 48 bits are far beyond any device. */
const MAX_NID = 2 ** 48;
/** What most inodes have behind them is within this. */
const PREFETCHED_BYTES = 128;
const PREFETCHED_LIST_BYTES = 1 << 20;
const MAP_BYTES_AT_ONCE = 65536;

/** Reads an EROFS filesystem from any source. Inodes are numbered by where they are: their nid. */
export class ErofsReader implements FilesystemReader {
  readonly name: string;
  readonly root: number;
  readonly superblock: Superblock;
  readonly #source: ByteSource;
  readonly #metadata: MetadataReader;

  private constructor(source: ByteSource, superblock: Superblock) {
    this.name = source.name;
    this.root = superblock.fields.rootNid;
    this.superblock = superblock;
    this.#source = source;
    this.#metadata = new MetadataReader(source, superblock.metaOffset, superblock.end);
  }

  /** Opens a filesystem. Throws `CORRUPT` or `UNSUPPORTED`, naming the field. */
  static async open(source: ByteSource): Promise<ErofsReader> {
    return new ErofsReader(source, await readSuperblock(source));
  }

  /** Byte offset of an inode on the device. */
  #offsetOf(nid: number): number {
    if (!Number.isSafeInteger(nid) || nid < 0 || nid >= MAX_NID) throw corrupt(`${this.name}: inode ${nid} is not possible`);
    return this.superblock.metaOffset + nid * SLOT_BYTES;
  }

  /** Reads many inodes at once, so that looking at them one after the other needs no more reads. */
  async prefetch(nids: Iterable<number>): Promise<void> {
    const offsets = Float64Array.from(nids, (nid) => this.#offsetOf(nid)).sort();
    await this.#metadata.prefetch([...offsets].map((offset) => [offset, Math.min(PREFETCHED_BYTES, this.#source.size - offset)] as const));
  }

  async inode(nid: number): Promise<ErofsInode> {
    const offset = this.#offsetOf(nid);
    let bytes = await this.#metadata.read(offset, compactInodeStruct.size);
    if (isExtended(bytes)) bytes = await this.#metadata.read(offset, extendedInodeStruct.size);
    const { buildSeconds, buildNanoseconds } = this.superblock.fields;
    return decodeInode(bytes, nid, { seconds: buildSeconds, nanoseconds: buildNanoseconds }, `${this.name}: inode ${nid}`);
  }

  async list(nid: number): Promise<NamedInode[]> {
    const inode = await this.inode(nid);
    const where = `${this.name}: directory ${nid}`;
    if (inode.type !== "directory") throw corrupt(`${this.name}: inode ${nid} is not a directory`);
    if (inode.size > MAX_DIRECTORY_BYTES) throw corrupt(`${where} has ${inode.size} bytes, expected at most ${MAX_DIRECTORY_BYTES}`);
    const extents = await this.#extentsOf(inode);
    await this.#metadata.prefetch(
      extents.map(({ deviceOffset, length }) => [deviceOffset, Math.min(length, PREFETCHED_LIST_BYTES)] as const),
    );
    const { blockBytes } = this.superblock;
    const found: NamedInode[] = [];
    let end = 0;
    for (const { offset, length, deviceOffset } of extents) {
      if (offset !== end) throw corrupt(`${where} has a hole at ${end}`);
      for (let at = 0; at < length; at += blockBytes) {
        const bytes = await this.#metadata.read(deviceOffset + at, Math.min(blockBytes, length - at));
        decodeDirectoryBlock(bytes, where, (entry) => found.push(entry));
      }
      end += length;
    }
    if (end !== inode.size) throw corrupt(`${where} has a hole at ${end}`);
    return found;
  }

  async linkTarget(nid: number): Promise<ByteString> {
    const inode = await this.inode(nid);
    if (inode.type !== "symlink") throw corrupt(`${this.name}: inode ${nid} is not a symlink`);
    if (inode.size > MAX_SYMLINK_BYTES) throw corrupt(`${this.name}: symlink ${nid} has a target of ${inode.size} bytes`);
    const target = new Uint8Array(inode.size);
    for (const { offset, length, deviceOffset } of await this.#extentsOf(inode)) {
      target.set(await this.#metadata.read(deviceOffset, length), offset);
    }
    return Buffer.from(target.buffer).toString("latin1");
  }

  async file(nid: number): Promise<ByteSource> {
    const inode = await this.#regular(nid);
    return new ErofsFile(this.#source, inode.size, await this.#extentsOf(inode), `${this.name}: inode ${nid}`);
  }

  async extents(nid: number): Promise<DeviceExtent[]> {
    return await this.#extentsOf(await this.#regular(nid));
  }

  async #regular(nid: number): Promise<ErofsInode> {
    const inode = await this.inode(nid);
    if (inode.type !== "file") throw corrupt(`${this.name}: inode ${nid} is not a regular file`);
    return inode;
  }

  async #extentsOf(inode: ErofsInode): Promise<DeviceExtent[]> {
    if (inode.layout === DATA_LAYOUT.chunks) return await this.#chunks(inode);
    if (inode.layout === DATA_LAYOUT.plain || inode.layout === DATA_LAYOUT.inline) return this.#flat(inode);
    const where = `${this.name}: inode ${inode.number}`;
    if (inode.layout === DATA_LAYOUT.compressedFull || inode.layout === DATA_LAYOUT.compressedCompact)
      throw unsupported(`${where} is a compressed file; only filesystems without compression can be read`);
    throw corrupt(`${where} has the data layout ${inode.layout}`);
  }

  /** Data in one piece, of which the last part may be behind the inode. */
  #flat(inode: ErofsInode): DeviceExtent[] {
    const { blockBytes } = this.superblock;
    const tail = inode.layout === DATA_LAYOUT.inline ? inode.size % blockBytes : 0;
    const whole = inode.size - tail;
    const extents: DeviceExtent[] = [];
    if (whole > 0) extents.push({ offset: 0, length: whole, deviceOffset: inode.data * blockBytes });
    if (tail > 0) {
      const deviceOffset = this.#offsetOf(inode.number) + inode.inodeBytes + inode.xattrBytes;
      if (Math.floor(deviceOffset / blockBytes) !== Math.floor((deviceOffset + tail - 1) / blockBytes))
        throw corrupt(`${this.name}: inode ${inode.number} has ${tail} bytes of data behind it that leave its block`);
      extents.push({ offset: whole, length: tail, deviceOffset });
    }
    for (const extent of extents) this.#checkExtent(inode, extent);
    return extents;
  }

  #checkExtent(inode: ErofsInode, { deviceOffset, length }: DeviceExtent): void {
    if (deviceOffset + length > this.#source.size)
      throw corrupt(`${this.name}: data of inode ${inode.number} ends at ${deviceOffset + length}, the device at ${this.#source.size}`);
  }

  async #chunks(inode: ErofsInode): Promise<DeviceExtent[]> {
    const where = `${this.name}: inode ${inode.number}`;
    const { blockBytes } = this.superblock;
    if (inode.data & ~(CHUNK_BITS_MASK | CHUNK_INDEXES))
      throw unsupported(`${where} has the chunk format 0x${inode.data.toString(16)}, expected at most 0x3f`);
    const chunkBytes = blockBytes * 2 ** (inode.data & CHUNK_BITS_MASK);
    const unit = inode.data & CHUNK_INDEXES ? 8 : 4;
    const start = Math.ceil((this.#offsetOf(inode.number) + inode.inodeBytes + inode.xattrBytes) / unit) * unit;
    const count = Math.ceil(inode.size / chunkBytes);
    if (start + count * unit > this.superblock.end)
      throw corrupt(`${where} has ${count} chunks, more than fit the filesystem's ${this.superblock.end} bytes`);
    if (count > MAX_CHUNKS) throw unsupported(`${where} has ${count} chunks, expected at most ${MAX_CHUNKS}`);
    const extents = new JoinedExtents();
    for (let at = 0; at < count * unit; at += MAP_BYTES_AT_ONCE) {
      const bytes = await this.#metadata.read(start + at, Math.min(MAP_BYTES_AT_ONCE, count * unit - at));
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let within = 0; within < bytes.length; within += unit) {
        const block = view.getUint32(within + unit - 4, true);
        if (block === NO_BLOCK) continue;
        if (unit === 8 && view.getUint16(within + 2, true) !== 0) throw unsupported(`${where} has data on another device`);
        const offset = ((at + within) / unit) * chunkBytes;
        const extent = { offset, length: Math.min(chunkBytes, inode.size - offset), deviceOffset: block * blockBytes };
        this.#checkExtent(inode, extent);
        extents.add(extent);
      }
    }
    return extents.all;
  }

  /** Extended attributes by full name, sorted. */
  async xattrs(nid: number): Promise<Map<ByteString, Uint8Array>> {
    const { inodeBytes, xattrBytes } = await this.inode(nid);
    if (xattrBytes === 0) return new Map();
    const where = `${this.name}: inode ${nid}`;
    const { shared, inline } = decodeArea(await this.#metadata.read(this.#offsetOf(nid) + inodeBytes, xattrBytes), where);
    const xattrs: Xattr[] = [];
    for (const number of shared) xattrs.push(await this.#sharedXattr(number, where));
    xattrs.push(...inline);
    xattrs.sort((a, b) => (a.name < b.name ? -1 : 1));
    return new Map(xattrs.map(({ name, value }) => [name, value]));
  }

  async #sharedXattr(number: number, where: string): Promise<Xattr> {
    const offset = this.superblock.xattrOffset + number * 4;
    const length = decodeEntryBytes(await this.#metadata.read(offset, xattrEntryStruct.size), 0);
    const xattr = decodeEntry(await this.#metadata.read(offset, length), 0, `${where}: shared attribute ${number}`);
    if (!xattr) throw corrupt(`${where}: there is no shared attribute ${number}`);
    return xattr;
  }
}

/** Extents in ascending order; those that follow each other on the device are one. */
class JoinedExtents {
  readonly all: DeviceExtent[] = [];

  add(extent: DeviceExtent): void {
    const last = this.all.at(-1);
    const follows = last && last.offset + last.length === extent.offset && last.deviceOffset + last.length === extent.deviceOffset;
    if (follows) this.all[this.all.length - 1] = { ...last, length: last.length + extent.length };
    else this.all.push(extent);
  }
}
