import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { StructValue } from "../../bytes/struct.ts";
import { corrupt, unsupported } from "../../errors.ts";
import { filesystemSeed } from "./checksum.ts";
import type { DirectoryHash } from "./directory-hash.ts";
import {
  COMPAT,
  groupStruct,
  INCOMPAT,
  INODE_BYTES,
  MAGIC,
  RO_COMPAT,
  SUPERBLOCK_OFFSET,
  superblockStruct,
  UNSIGNED_HASH,
} from "./layout.ts";

export type SuperblockFields = StructValue<typeof superblockStruct>;

/** A checked superblock and what follows from it. */
export interface Superblock {
  readonly fields: SuperblockFields;
  readonly blockBytes: number;
  readonly blocks: number;
  readonly groups: number;
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  readonly hasMetadataCsum: boolean;
  /** Where metadata checksums start from. */
  readonly seed: number;
  readonly hash: DirectoryHash;
}

/** Names that differ from those in the tables. */
const TOOL_NAMES: Readonly<Record<string, string>> = {
  metaBg: "meta_bg",
  bits64: "64bit",
  flexBg: "flex_bg",
  eaInode: "ea_inode",
  csumSeed: "metadata_csum_seed",
  largeDir: "large_dir",
  inlineData: "inline_data",
  dirData: "dirdata",
  journalDevice: "journal_dev",
};

const CLEAN = 1;
/** Enough for 64 TiB in the usual groups. */
const MAX_TABLE_BYTES = 32 * 2 ** 20;
const MIN_BLOCKS_PER_GROUP = 256;

const READABLE =
  INCOMPAT.fileType | INCOMPAT.extents | INCOMPAT.bits64 | INCOMPAT.flexBg | INCOMPAT.eaInode | INCOMPAT.csumSeed | INCOMPAT.largeDir;
const WRITABLE_INCOMPAT = INCOMPAT.fileType | INCOMPAT.extents | INCOMPAT.bits64 | INCOMPAT.flexBg | INCOMPAT.eaInode | INCOMPAT.csumSeed;
const WRITABLE_RO_COMPAT =
  RO_COMPAT.sparseSuper |
  RO_COMPAT.largeFile |
  RO_COMPAT.hugeFile |
  RO_COMPAT.gdtCsum |
  RO_COMPAT.dirNlink |
  RO_COMPAT.extraIsize |
  RO_COMPAT.metadataCsum;
const WRITABLE_COMPAT = COMPAT.hasJournal | COMPAT.extAttr | COMPAT.resizeInode | COMPAT.dirIndex | COMPAT.sparseSuper2 | COMPAT.orphanFile;

/** Parses the 1024 bytes at offset 1024 and refuses what could not be read right. `where` names the device. */
export function parseSuperblock(bytes: Uint8Array, deviceBytes: number, where: string): Superblock {
  const fields = superblockStruct.decode(bytes);
  const at = `${where}: ext4 superblock at ${SUPERBLOCK_OFFSET}`;
  if (fields.magic !== MAGIC) throw corrupt(`${at} has magic 0x${fields.magic.toString(16)}, expected 0xef53`);
  if (fields.incompat & INCOMPAT.recover) throw unsupported(`${at}: its journal has to be replayed first; mount it once or run e2fsck`);
  const unknown = fields.incompat & ~READABLE;
  if (unknown !== 0) throw unsupported(`${at} needs features that are not supported: ${featureNames(unknown, INCOMPAT)}`);
  if (fields.roCompat & RO_COMPAT.bigalloc) throw unsupported(`${at} has clusters larger than a block (bigalloc)`);
  const hasMetadataCsum = (fields.roCompat & RO_COMPAT.metadataCsum) !== 0;
  if (hasMetadataCsum) checkChecksum(bytes, fields, at);
  const superblock = derive(fields, hasMetadataCsum);
  checkSizes(superblock, deviceBytes, at);
  return superblock;
}

/** The features among some bits, by the names that other tools know them by; unknown ones in hexadecimal. */
function featureNames(bits: number, known: Readonly<Record<string, number>>): string {
  const names = Object.entries(known).filter(([, bit]) => bits & bit);
  const unknown = (bits & ~names.reduce((sum, [, bit]) => sum | bit, 0)) >>> 0;
  return [...names.map(([name]) => TOOL_NAMES[name] ?? name), ...(unknown === 0 ? [] : [`0x${unknown.toString(16)}`])].join(", ");
}

function checkChecksum(bytes: Uint8Array, fields: SuperblockFields, at: string): void {
  const found = superblockChecksum(bytes);
  if (found !== fields.checksum) throw corrupt(`${at} has checksum ${hex(fields.checksum)}, expected ${hex(found)}`);
}

/** The checksum of a superblock's first 1020 bytes. */
export function superblockChecksum(bytes: Uint8Array): number {
  return crc32cRaw(0xffffffff, bytes, 0, 0x3fc);
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

function derive(fields: SuperblockFields, hasMetadataCsum: boolean): Superblock {
  const blocks = fields.blocksCountLow + (fields.incompat & INCOMPAT.bits64 ? fields.blocksCountHigh * 2 ** 32 : 0);
  const seedWords = new DataView(fields.hashSeed.buffer, fields.hashSeed.byteOffset);
  const useCsumSeed = (fields.incompat & INCOMPAT.csumSeed) !== 0;
  return {
    fields,
    blockBytes: 1024 * 2 ** fields.logBlockSize,
    blocks,
    groups: Math.ceil((blocks - fields.firstDataBlock) / fields.blocksPerGroup),
    blocksPerGroup: fields.blocksPerGroup,
    inodesPerGroup: fields.inodesPerGroup,
    inodeBytes: fields.revision === 0 ? 128 : fields.inodeSize,
    descriptorBytes: fields.incompat & INCOMPAT.bits64 ? fields.descriptorBytes : 32,
    hasMetadataCsum,
    seed: useCsumSeed ? fields.checksumSeed : filesystemSeed(fields.uuid),
    hash: {
      version: fields.hashVersion,
      signed: (fields.flags & UNSIGNED_HASH) === 0,
      seed: Uint32Array.from([0, 4, 8, 12], (offset) => seedWords.getUint32(offset, true)),
    },
  };
}

function checkSizes(superblock: Superblock, deviceBytes: number, at: string): void {
  const { fields, blockBytes, blocks, groups, blocksPerGroup, inodesPerGroup, inodeBytes, descriptorBytes } = superblock;
  const bits = blockBytes * 8;
  const sane =
    fields.logBlockSize <= 6 &&
    fields.firstDataBlock === (blockBytes === 1024 ? 1 : 0) &&
    blocksPerGroup >= MIN_BLOCKS_PER_GROUP &&
    blocksPerGroup % 8 === 0 &&
    blocksPerGroup <= bits &&
    inodesPerGroup > 0 &&
    inodesPerGroup % 8 === 0 &&
    inodesPerGroup <= bits &&
    inodeBytes >= 128 &&
    inodeBytes <= blockBytes &&
    (inodeBytes & (inodeBytes - 1)) === 0 &&
    descriptorBytes >= 32 &&
    descriptorBytes <= blockBytes &&
    (descriptorBytes & (descriptorBytes - 1)) === 0 &&
    groups > 0 &&
    groups * inodesPerGroup === fields.inodesCount;
  if (!sane) {
    throw corrupt(
      `${at} has impossible sizes: blocks of ${blockBytes} bytes, ${groups} groups of ${blocksPerGroup} blocks and ${inodesPerGroup} inodes, ${fields.inodesCount} inodes of ${inodeBytes} bytes`,
    );
  }
  if (groups * descriptorBytes > MAX_TABLE_BYTES)
    throw unsupported(`${at} has ${groups} groups, at most ${MAX_TABLE_BYTES / descriptorBytes} are supported`);
  if (blocks * blockBytes > deviceBytes)
    throw corrupt(`${at} counts ${blocks} blocks of ${blockBytes} bytes, the device has ${deviceBytes} bytes`);
}

/** Refuses filesystems that can be read but not continued. */
export function checkWritable(superblock: Superblock, where: string): void {
  const { fields } = superblock;
  const refused: string[] = [];
  if (fields.incompat & ~WRITABLE_INCOMPAT) refused.push(featureNames(fields.incompat & ~WRITABLE_INCOMPAT, INCOMPAT));
  if (fields.roCompat & ~WRITABLE_RO_COMPAT) refused.push(featureNames(fields.roCompat & ~WRITABLE_RO_COMPAT, RO_COMPAT));
  if (fields.compat & ~WRITABLE_COMPAT) refused.push(featureNames(fields.compat & ~WRITABLE_COMPAT, COMPAT));
  if (!(fields.incompat & INCOMPAT.extents) || !(fields.incompat & INCOMPAT.fileType)) refused.push("no extents or no file types");
  if (superblock.blockBytes !== 4096) refused.push(`blocks of ${superblock.blockBytes} bytes`);
  if (superblock.inodeBytes !== INODE_BYTES) refused.push(`inodes of ${superblock.inodeBytes} bytes`);
  if (superblock.descriptorBytes > groupStruct.size) refused.push(`descriptors of ${superblock.descriptorBytes} bytes`);
  if (fields.firstDataBlock !== 0) refused.push(`first data block ${fields.firstDataBlock}`);
  if (fields.state !== CLEAN || fields.lastOrphan !== 0)
    refused.push(`state ${fields.state}, first orphan ${fields.lastOrphan} (run e2fsck first)`);
  if (refused.length > 0) throw unsupported(`${where}: cannot add a layer to this ext4 filesystem: ${refused.join(", ")}`);
}
