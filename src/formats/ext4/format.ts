import { unsupported } from "../../errors.ts";
import {
  groupStruct,
  BLOCK_BYTES,
  COMPAT,
  GROUP_FLAG,
  INCOMPAT,
  INODE_BYTES,
  MAGIC,
  RO_COMPAT,
  ROOT_INODE,
  SIGNED_HASH,
  superblockStruct,
} from "./layout.ts";
import { HASH_HALF_MD4 } from "./directory-hash.ts";
import type { Group } from "./group-descriptor.ts";
import { superblockChecksum, parseSuperblock } from "./superblock.ts";
import { Volume } from "./volume.ts";

export interface FormatOptions {
  /** Size of the device; a multiple of 4096. */
  readonly bytes: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** 16 bytes. */
  readonly hashSeed: Uint8Array;
}

const BLOCKS_PER_GROUP = BLOCK_BYTES * 8; // one bitmap block
const BYTES_PER_INODE = 16384;
const INODES_PER_GROUP = (BLOCKS_PER_GROUP * BLOCK_BYTES) / BYTES_PER_INODE;
const TABLE_BLOCKS = (INODES_PER_GROUP * INODE_BYTES) / BLOCK_BYTES;
const MIN_BYTES = 16 * 2 ** 20;
const MAX_GROUPS = Math.floor((2 ** 32 - 1) / INODES_PER_GROUP); // inode numbers have 32 bits; just below 64 TiB
const RESERVED_INODES = 10;
const DEFAULT_XATTR_AND_ACL = 0xc; // mount options user_xattr, acl

/**
 * A new filesystem in memory. All metadata lies together at the front: superblock, descriptors, then all block bitmaps,
 * inode bitmaps and inode tables of all groups; there are no backups. See docs/formats/ext4.md.
 */
export function formatVolume(options: FormatOptions): Volume {
  const blocks = options.bytes / BLOCK_BYTES;
  if (!Number.isSafeInteger(blocks) || options.bytes < MIN_BYTES) {
    throw unsupported(`a filesystem of ${options.bytes} bytes: expected a multiple of ${BLOCK_BYTES}, at least ${MIN_BYTES}`);
  }
  const groupCount = Math.ceil(blocks / BLOCKS_PER_GROUP);
  if (groupCount > MAX_GROUPS) {
    throw unsupported(`a filesystem of ${options.bytes} bytes: expected at most ${MAX_GROUPS * BLOCKS_PER_GROUP * BLOCK_BYTES}`);
  }
  const descriptorBlocks = Math.ceil((groupCount * groupStruct.size) / BLOCK_BYTES);
  const superblock = parseSuperblock(encodeSuperblock(options, blocks, groupCount), options.bytes, "new filesystem");
  const metadataEnd = 1 + descriptorBlocks + groupCount * (2 + TABLE_BLOCKS);
  if (metadataEnd >= blocks)
    throw unsupported(`a filesystem of ${options.bytes} bytes is too small for its ${metadataEnd} metadata blocks`);
  const groups = Array.from({ length: groupCount }, (_, number) => newGroup(number, groupCount, descriptorBlocks, blocks));
  const volume = new Volume(superblock, groups);
  volume.blocks.create(0, new Uint8Array(BLOCK_BYTES));
  volume.allocator.reserve({ block: 0, blocks: metadataEnd });
  volume.allocator.initialize(groupCount - 1); // filesystem checks want the last group's bitmap
  for (let inode = 1; inode <= RESERVED_INODES; inode++) volume.inodes.mark(inode, inode === ROOT_INODE);
  volume.writeGroups(groups.keys());
  volume.beginLayer(0);
  return volume;
}

function newGroup(number: number, groupCount: number, descriptorBlocks: number, blocks: number): Group {
  const bitmaps = 1 + descriptorBlocks;
  return {
    blockBitmap: bitmaps + number,
    inodeBitmap: bitmaps + groupCount + number,
    inodeTable: bitmaps + groupCount * 2 + number * TABLE_BLOCKS,
    freeBlocks: Math.min(BLOCKS_PER_GROUP, blocks - number * BLOCKS_PER_GROUP),
    freeInodes: INODES_PER_GROUP,
    usedDirectories: 0,
    flags: GROUP_FLAG.inodeUninit | GROUP_FLAG.blockUninit | GROUP_FLAG.inodeZeroed,
    unusedInodes: INODES_PER_GROUP,
    blockBitmapCsum: 0,
    inodeBitmapCsum: 0,
  };
}

function encodeSuperblock(options: FormatOptions, blocks: number, groups: number): Uint8Array {
  const bytes = superblockStruct.encode({
    inodesCount: groups * INODES_PER_GROUP,
    blocksCountLow: blocks % 2 ** 32,
    blocksCountHigh: Math.floor(blocks / 2 ** 32),
    logBlockSize: 2,
    logClusterSize: 2,
    blocksPerGroup: BLOCKS_PER_GROUP,
    clustersPerGroup: BLOCKS_PER_GROUP,
    inodesPerGroup: INODES_PER_GROUP,
    maxMountCount: 0xffff,
    magic: MAGIC,
    state: 1, // cleanly unmounted
    errors: 1, // continue
    revision: 1,
    firstInode: RESERVED_INODES + 1,
    inodeSize: INODE_BYTES,
    compat: COMPAT.extAttr | COMPAT.dirIndex | COMPAT.sparseSuper2,
    incompat: INCOMPAT.fileType | INCOMPAT.extents | INCOMPAT.bits64 | INCOMPAT.flexBg,
    roCompat: RO_COMPAT.largeFile | RO_COMPAT.hugeFile | RO_COMPAT.dirNlink | RO_COMPAT.extraIsize | RO_COMPAT.metadataCsum,
    uuid: options.uuid,
    hashSeed: options.hashSeed,
    hashVersion: HASH_HALF_MD4,
    descriptorBytes: groupStruct.size,
    defaultMountOptions: DEFAULT_XATTR_AND_ACL,
    minExtraIsize: 32,
    wantExtraIsize: 32,
    flags: SIGNED_HASH,
    logGroupsPerFlex: Math.ceil(Math.log2(groups)) || 1,
    checksumType: 1, // CRC-32C
  });
  superblockStruct.encodeInto(bytes, { checksum: superblockChecksum(bytes) });
  return bytes;
}
