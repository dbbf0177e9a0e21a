import { raw, Struct, u16, u32, u64, u8, type FieldType } from "../../bytes/struct.ts";
import { corrupt } from "../../errors.ts";

/** What we write. See docs/formats/erofs.md. */
export const BLOCK_BYTES = 4096;
export const SUPERBLOCK_OFFSET = 1024;
export const MAGIC = 0xe0f5e1e2;
/** Inodes lie at multiples of this from the start of the metadata area; a multiple is an inode's number, its nid. */
export const SLOT_BYTES = 32;
/** Block address of what has no block: a hole, or data that lies inline as a whole. */
export const NO_BLOCK = 0xffffffff;

/** Seconds as they may be before 1970. */
const seconds: FieldType<number> = {
  bytes: 8,
  get: (view, at) => {
    const value = Number(view.getBigInt64(at, true));
    if (!Number.isSafeInteger(value)) throw corrupt(`time at ${at} is ${value} seconds, expected less than 2^53`);
    return value;
  },
  set: (view, at, value) => view.setBigInt64(at, BigInt(value), true),
};

export const superblockStruct = new Struct(128, {
  magic: [0, u32],
  checksum: [4, u32],
  compat: [8, u32],
  blockBits: [12, u8],
  extensionSlots: [13, u8],
  rootNid: [14, u16],
  inodes: [16, u64],
  buildSeconds: [24, seconds],
  buildNanoseconds: [32, u32],
  blocks: [36, u32],
  metaBlock: [40, u32],
  xattrBlock: [44, u32],
  uuid: [48, raw(16)],
  volumeName: [64, raw(16)],
  incompat: [80, u32],
  compression: [84, u16],
  extraDevices: [86, u16],
  deviceSlot: [88, u16],
  directoryBlockBits: [90, u8],
});

export const compactInodeStruct = new Struct(32, {
  format: [0, u16],
  xattrCount: [2, u16],
  mode: [4, u16],
  links: [6, u16],
  size: [8, u32],
  mtimeOffset: [12, u32],
  data: [16, u32],
  serial: [20, u32],
  uid: [24, u16],
  gid: [26, u16],
});

export const extendedInodeStruct = new Struct(64, {
  format: [0, u16],
  xattrCount: [2, u16],
  mode: [4, u16],
  size: [8, u64],
  data: [16, u32],
  serial: [20, u32],
  uid: [24, u32],
  gid: [28, u32],
  mtimeSeconds: [32, seconds],
  mtimeNanoseconds: [40, u32],
  links: [44, u32],
});

export const direntStruct = new Struct(12, {
  nid: [0, u64],
  nameOffset: [8, u16],
  type: [10, u8],
});

export const xattrHeaderStruct = new Struct(12, {
  nameFilter: [0, u32],
  sharedCount: [4, u8],
});

export const xattrEntryStruct = new Struct(4, {
  nameBytes: [0, u8],
  nameIndex: [1, u8],
  valueBytes: [2, u16],
});

export const COMPAT = { checksum: 0x1 } as const;

export const INCOMPAT = {
  zeroPadding: 0x1,
  compressionConfigs: 0x2,
  chunkedFile: 0x4,
  deviceTable: 0x8,
  compressedTail: 0x10,
  fragments: 0x20,
} as const;

/** Bits of an inode's `format`: bit 0 says that it is extended, bits 1–3 where the data is. */
export const FORMAT_EXTENDED = 1;
export const DATA_LAYOUT = { plain: 0, compressedFull: 1, inline: 2, compressedCompact: 3, chunks: 4 } as const;

/** Bits of `data` of an inode whose data is in chunks. */
export const CHUNK_BITS_MASK = 0x1f;
export const CHUNK_INDEXES = 0x20;
