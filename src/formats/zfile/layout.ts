import { raw, Struct, u32, u64, u8, type StructValue } from "../../bytes/struct.ts";
import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { BlockAlgorithm } from "../../compression/block-codec.ts";

/*
 * The record at the start and at the end of a ZFile. See docs/formats/zfile.md.
 *
 *   [header 512] [block 0] [crc 0] … [block n-1] [crc n-1] [index 4 × n] [trailer 512]
 */

export const ZFILE_RECORD_BYTES = 512;

export const ZFILE_MAGIC: Uint8Array = Buffer.from("ZFile\0\x01\0tuji.yyf@Alibaba", "latin1");

/** What says how to read the rest; the only part that is defined in every header ever written. */
const prefixFields = {
  magic: [0, raw(24)],
  recordBytes: [24, u32],
  digest: [28, u32],
  flags: [32, u32],
} as const;

export const zfilePrefix = new Struct(36, prefixFields);

export const zfileRecord = new Struct(ZFILE_RECORD_BYTES, {
  ...prefixFields,
  flagsHigh: [36, u32],
  indexOffset: [40, u64],
  indexEntries: [48, u64],
  originalBytes: [56, u64],
  indexCrc: [64, u32],
  reserved0: [68, u32],
  blockSize: [72, u32],
  algorithm: [76, u8],
  level: [77, u8],
  useDictionary: [78, u8],
  pad0: [79, u8],
  reserved1: [80, u32],
  dictionaryBytes: [84, u32],
  verify: [88, u8],
  pad1: [89, raw(7)],
  unused: [96, raw(416)],
});

export type ZFileRecord = StructValue<typeof zfileRecord>;

/** The value of the `recordBytes` field: the part of the record that has a meaning. */
export const ZFILE_MEANINGFUL_BYTES = 96;

export const FLAG_HEADER = 1 << 0;
export const FLAG_DATA = 1 << 1;
export const FLAG_SEALED = 1 << 2;
/** The header carries everything; the trailer need not be read. */
export const FLAG_HEADER_OVERWRITTEN = 1 << 3;
/** `digest` and `indexCrc` are valid. */
export const FLAG_DIGEST = 1 << 4;
/** Declared, never written. */
export const FLAG_INDEX_COMPRESSED = 1 << 5;
/** Bits above these were never cleared by old writers and mean nothing. */
export const FLAGS_DEFINED = 0x1f;

/** Blocks of more than this cannot be addressed by the index of existing readers. */
export const MAX_BLOCK_SIZE = 65536;
/** Existing readers refuse an index of more entries. */
export const MAX_INDEX_ENTRIES = 1_000_000_000;
/** Existing readers cannot fetch a stored block of more bytes, its CRC included. */
export const MAX_STORED_BLOCK_BYTES = 65536;

export const ALGORITHM_CODES: Readonly<Record<BlockAlgorithm, number>> = { lz4: 1, zstd: 2 };

/** The CRC-32C of a record, its `digest` field taken as zero. */
export function recordDigest(record: Uint8Array): number {
  const copy = record.slice(0, ZFILE_RECORD_BYTES);
  copy.fill(0, 28, 32);
  return crc32cRaw(0, copy);
}
