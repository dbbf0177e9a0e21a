import { crc32cRaw } from "../../bytes/crc32c.ts";
import { unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { xattrBlockChecksum } from "./checksum.ts";
import { NO_EXTENTS } from "./extent-tree.ts";
import type { Inode } from "./inode.ts";
import { NO_XATTRS, XATTR_AREA_BYTES } from "./inode-table.ts";
import { BLOCK_BYTES, EXTRA_ISIZE, INCOMPAT, INODE_FLAG, SECTORS_PER_BLOCK } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";
import type { Volume } from "./volume.ts";
import {
  blockRoom,
  encodeInodeXattrs,
  encodeXattrBlock,
  inodeRoom,
  parseInodeXattrs,
  parseXattrBlock,
  recordBytes,
  toDiskValue,
  type XattrRecord,
} from "./xattr.ts";

const MAX_VALUE_BYTES = 65536; // the kernel's XATTR_SIZE_MAX

/**
 * Places an inode's attributes: in its record while they fit, then in a block of their own, and the largest values in
 * inodes of their own when the block is full. Sets `xattrBlock`, counts the sectors, and returns the record's attribute
 * area.
 */
export function storeXattrs(volume: Volume, inode: Inode, xattrs: ReadonlyMap<ByteString, Uint8Array>): Uint8Array {
  const records = [...xattrs].map(([name, value]) => plainRecord(name, toDiskValue(name, value)));
  const inRecord: XattrRecord[] = [];
  const inBlock: XattrRecord[] = [];
  let room = inodeRoom(XATTR_AREA_BYTES);
  for (const record of records) {
    const bytes = recordBytes(record);
    if (bytes <= room) inRecord.push(record);
    else inBlock.push(record);
    if (bytes <= room) room -= bytes;
  }
  if (inBlock.length > 0) storeBlock(volume, inode, inBlock);
  return encodeInodeXattrs(inRecord, XATTR_AREA_BYTES);
}

function plainRecord(name: ByteString, value: Uint8Array): XattrRecord {
  if (value.length > MAX_VALUE_BYTES)
    throw unsupported(`extended attribute ${name} has ${value.length} bytes, at most ${MAX_VALUE_BYTES} can be stored`);
  return { name, value, valueInode: 0, valueHash: 0, valueBytes: value.length };
}

function storeBlock(volume: Volume, inode: Inode, records: XattrRecord[]): void {
  const placed = [...records];
  while (placed.reduce((sum, record) => sum + recordBytes(record), 0) > blockRoom(BLOCK_BYTES)) {
    const largest = placed.reduce((a, b) => (b.value.length > a.value.length ? b : a));
    if (largest.value.length === 0) throw unsupported(`${records.length} extended attributes do not fit a block of ${BLOCK_BYTES} bytes`);
    placed[placed.indexOf(largest)] = moveToInode(volume, largest);
  }
  const [run] = volume.allocate(1);
  inode.xattrBlock = run.block;
  inode.sectors += SECTORS_PER_BLOCK;
  for (const record of placed) if (record.valueInode !== 0) inode.sectors += valueSectors(record.valueBytes);
  const bytes = Buffer.from(encodeXattrBlock(placed, BLOCK_BYTES));
  if (volume.superblock.hasMetadataCsum) bytes.writeUInt32LE(xattrBlockChecksum(volume.superblock.seed, run.block, bytes), 16);
  volume.blocks.create(run.block, bytes);
}

/** Stores a value as the content of an inode that only attributes refer to. */
function moveToInode(volume: Volume, record: XattrRecord): XattrRecord {
  const { superblock } = volume;
  superblock.fields.incompat |= INCOMPAT.eaInode;
  const hash = crc32cRaw(superblock.seed, record.value);
  const number = volume.inodes.allocate(false);
  const epoch = { seconds: 0, nanoseconds: 0 };
  const inode: Inode = {
    mode: FILE_KIND.file | 0o600,
    uid: 0,
    gid: 0,
    size: record.value.length,
    links: 1,
    sectors: 0,
    flags: INODE_FLAG.extents | INODE_FLAG.eaInode,
    generation: 0,
    // Such an inode keeps the value's hash in its access time and the reference count in change time and version.
    atime: { seconds: hash | 0, nanoseconds: 0 },
    mtime: epoch,
    ctime: epoch,
    xattrBlock: 0,
    version: 1,
    block: NO_EXTENTS,
    extraIsize: EXTRA_ISIZE,
    createTime: 0,
    createTimeExtra: 0,
  };
  volume.setExtents(number, inode, volume.store(record.value));
  volume.inodes.write(number, inode, NO_XATTRS);
  return { ...record, value: new Uint8Array(), valueInode: number, valueHash: hash };
}

/** Frees an inode's attribute block and the inodes that hold values; counts the sectors. Leaves `xattrBlock` zero. */
export function freeXattrs(volume: Volume, number: number, inode: Inode): void {
  const where = `inode ${number}`;
  const inRecord = parseInodeXattrs(volume.inodes.xattrArea(number), where);
  if (inode.xattrBlock !== 0) {
    const block = volume.blocks.get(inode.xattrBlock);
    const references = block.readUInt32LE(4);
    const inBlock = parseXattrBlock(block, where);
    for (const { valueInode, valueBytes } of inBlock) if (valueInode !== 0) inode.sectors -= valueSectors(valueBytes);
    if (references > 1) {
      shareLess(volume, inode.xattrBlock, references - 1);
    } else {
      for (const { valueInode } of inBlock) if (valueInode !== 0) dropValue(volume, valueInode);
      volume.release(inode.xattrBlock);
    }
    inode.xattrBlock = 0;
    inode.sectors -= SECTORS_PER_BLOCK;
  }
  for (const { valueInode, valueBytes } of inRecord) {
    if (valueInode === 0) continue;
    inode.sectors -= valueSectors(valueBytes);
    dropValue(volume, valueInode);
  }
}

/** Filesystems made elsewhere may share an attribute block between inodes. */
function shareLess(volume: Volume, block: number, references: number): void {
  const bytes = Buffer.from(volume.blocks.get(block));
  bytes.writeUInt32LE(references, 4);
  if (volume.superblock.hasMetadataCsum) bytes.writeUInt32LE(xattrBlockChecksum(volume.superblock.seed, block, bytes), 16);
  volume.blocks.write(block, bytes);
}

/** Values in inodes of their own count as blocks of the inode that they describe. */
function valueSectors(valueBytes: number): number {
  return Math.ceil(valueBytes / BLOCK_BYTES) * SECTORS_PER_BLOCK;
}

function dropValue(volume: Volume, number: number): void {
  const inode = volume.inodes.read(number);
  if (inode.version > 1) {
    inode.version--;
    volume.inodes.write(number, inode, volume.inodes.xattrArea(number));
    return;
  }
  const { extents, nodes } = volume.extents(number, inode);
  for (const extent of extents) for (let index = 0; index < extent.blocks; index++) volume.release(extent.block + index);
  for (const block of nodes) volume.release(block);
  volume.inodes.free(number, false);
}
