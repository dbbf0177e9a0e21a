import { raw, Struct, text, u16, u32, u64, u8 } from "../../bytes/struct.ts";

/** The only block size that is written; the reader takes 1 KiB to 64 KiB. */
export const BLOCK_BYTES = 4096;
export const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;
export const SUPERBLOCK_OFFSET = 1024;
export const MAGIC = 0xef53;

/** Feature bits. docs/formats/ext4.md says which of them are written, continued and refused. */
export const COMPAT = {
  hasJournal: 0x4,
  extAttr: 0x8,
  resizeInode: 0x10,
  dirIndex: 0x20,
  sparseSuper2: 0x200,
  orphanFile: 0x1000,
} as const;
export const INCOMPAT = {
  fileType: 0x2,
  recover: 0x4,
  metaBg: 0x10,
  extents: 0x40,
  bits64: 0x80,
  journalDevice: 0x8,
  mmp: 0x100,
  flexBg: 0x200,
  eaInode: 0x400,
  dirData: 0x1000,
  csumSeed: 0x2000,
  largeDir: 0x4000,
  inlineData: 0x8000,
  encrypt: 0x10000,
  casefold: 0x20000,
} as const;
export const RO_COMPAT = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  hugeFile: 0x8,
  gdtCsum: 0x10,
  dirNlink: 0x20,
  extraIsize: 0x40,
  quota: 0x100,
  bigalloc: 0x200,
  metadataCsum: 0x400,
  project: 0x2000,
  verity: 0x8000,
  orphanPresent: 0x10000,
} as const;

export const superblockStruct = new Struct(1024, {
  inodesCount: [0x0, u32],
  blocksCountLow: [0x4, u32],
  reservedBlocksLow: [0x8, u32],
  freeBlocksLow: [0xc, u32],
  freeInodes: [0x10, u32],
  firstDataBlock: [0x14, u32],
  logBlockSize: [0x18, u32],
  logClusterSize: [0x1c, u32],
  blocksPerGroup: [0x20, u32],
  clustersPerGroup: [0x24, u32],
  inodesPerGroup: [0x28, u32],
  mountTime: [0x2c, u32],
  writeTime: [0x30, u32],
  mountCount: [0x34, u16],
  maxMountCount: [0x36, u16],
  magic: [0x38, u16],
  state: [0x3a, u16],
  errors: [0x3c, u16],
  minorRevision: [0x3e, u16],
  lastCheck: [0x40, u32],
  checkInterval: [0x44, u32],
  creatorOs: [0x48, u32],
  revision: [0x4c, u32],
  firstInode: [0x54, u32],
  inodeSize: [0x58, u16],
  compat: [0x5c, u32],
  incompat: [0x60, u32],
  roCompat: [0x64, u32],
  uuid: [0x68, raw(16)],
  volumeName: [0x78, text(16)],
  reservedGdtBlocks: [0xce, u16],
  journalInode: [0xe0, u32],
  lastOrphan: [0xe8, u32],
  hashSeed: [0xec, raw(16)],
  hashVersion: [0xfc, u8],
  descriptorBytes: [0xfe, u16],
  defaultMountOptions: [0x100, u32],
  makeTime: [0x108, u32],
  blocksCountHigh: [0x150, u32],
  reservedBlocksHigh: [0x154, u32],
  freeBlocksHigh: [0x158, u32],
  minExtraIsize: [0x15c, u16],
  wantExtraIsize: [0x15e, u16],
  flags: [0x160, u32],
  logGroupsPerFlex: [0x174, u8],
  checksumType: [0x175, u8],
  kilobytesWritten: [0x178, u64],
  backupGroup0: [0x24c, u32],
  backupGroup1: [0x250, u32],
  checksumSeed: [0x270, u32],
  checksum: [0x3fc, u32],
});

/** Superblock `flags`: how characters above 127 enter directory hashes. */
export const SIGNED_HASH = 0x1;
export const UNSIGNED_HASH = 0x2;

/** A group descriptor; the second half exists where descriptors have 64 bytes. */
export const groupStruct = new Struct(64, {
  blockBitmapLow: [0x0, u32],
  inodeBitmapLow: [0x4, u32],
  inodeTableLow: [0x8, u32],
  freeBlocksLow: [0xc, u16],
  freeInodesLow: [0xe, u16],
  usedDirectoriesLow: [0x10, u16],
  flags: [0x12, u16],
  blockBitmapCsumLow: [0x18, u16],
  inodeBitmapCsumLow: [0x1a, u16],
  unusedInodesLow: [0x1c, u16],
  checksum: [0x1e, u16],
  blockBitmapHigh: [0x20, u32],
  inodeBitmapHigh: [0x24, u32],
  inodeTableHigh: [0x28, u32],
  freeBlocksHigh: [0x2c, u16],
  freeInodesHigh: [0x2e, u16],
  usedDirectoriesHigh: [0x30, u16],
  unusedInodesHigh: [0x32, u16],
  blockBitmapCsumHigh: [0x38, u16],
  inodeBitmapCsumHigh: [0x3a, u16],
});

export const GROUP_FLAG = { inodeUninit: 0x1, blockUninit: 0x2, inodeZeroed: 0x4 } as const;

/** An inode of 256 bytes; extended attributes may follow at 128 + extraIsize. */
export const inodeStruct = new Struct(160, {
  mode: [0x0, u16],
  uidLow: [0x2, u16],
  sizeLow: [0x4, u32],
  atime: [0x8, u32],
  ctime: [0xc, u32],
  mtime: [0x10, u32],
  deletionTime: [0x14, u32],
  gidLow: [0x18, u16],
  links: [0x1a, u16],
  blocksLow: [0x1c, u32],
  flags: [0x20, u32],
  versionLow: [0x24, u32],
  block: [0x28, raw(60)],
  generation: [0x64, u32],
  fileAclLow: [0x68, u32],
  sizeHigh: [0x6c, u32],
  blocksHigh: [0x74, u16],
  fileAclHigh: [0x76, u16],
  uidHigh: [0x78, u16],
  gidHigh: [0x7a, u16],
  checksumLow: [0x7c, u16],
  extraIsize: [0x80, u16],
  checksumHigh: [0x82, u16],
  ctimeExtra: [0x84, u32],
  mtimeExtra: [0x88, u32],
  atimeExtra: [0x8c, u32],
  createTime: [0x90, u32],
  createTimeExtra: [0x94, u32],
});

export const INODE_BYTES = 256;
export const EXTRA_ISIZE = 32;
export const INODE_FLAG = { index: 0x1000, hugeFile: 0x40000, extents: 0x80000, eaInode: 0x200000, inlineData: 0x10000000 } as const;

export const ROOT_INODE = 2;
/** More links than this are not counted in a directory: its link count becomes 1 (dir_nlink). */
export const MAX_LINKS = 65000;
