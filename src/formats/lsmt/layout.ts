import { raw, Struct, text, u16, u32, u64, u8, type StructValue } from "../../bytes/struct.ts";
import { corrupt, messageOf } from "../../errors.ts";

/*
 * An LSMT layer maps sectors of a device to sectors of its own file. See docs/formats/lsmt.md.
 *
 *   [header 4096] [data …] [index 16 × n] [trailer 4096]
 */

export const SECTOR_BYTES = 512;
export const LSMT_RECORD_BYTES = 4096;
/** The first sector of a layer's file that can hold data. */
export const FIRST_DATA_SECTOR = LSMT_RECORD_BYTES / SECTOR_BYTES;

export const LSMT_MAGIC: Uint8Array = Buffer.from("4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a", "hex");

export const lsmtRecord = new Struct(LSMT_RECORD_BYTES, {
  magic: [0, raw(24)],
  recordBytes: [24, u32],
  flags: [28, u32],
  indexOffset: [32, u64],
  indexEntries: [40, u64],
  virtualSize: [48, u64],
  uuid: [56, text(37)],
  parentUuid: [93, text(37)],
  reserved: [130, u16],
  version: [132, u8],
  subVersion: [133, u8],
  userTag: [134, raw(256)],
  unused: [390, raw(3706)],
});

export type LsmtRecord = StructValue<typeof lsmtRecord>;

/** The value of the `recordBytes` field: the part of the record that has a meaning. */
const LSMT_MEANINGFUL_BYTES = 390;
export const USER_TAG_BYTES = 256;
export const NO_UUID = "00000000-0000-0000-0000-000000000000";

export const FLAG_HEADER = 1 << 0;
/** A data file; an index file where clear. */
export const FLAG_DATA = 1 << 1;
export const FLAG_SEALED = 1 << 2;
export const FLAG_SPARSE = 1 << 4;

export const MAPPING_BYTES = 16;
/** The longest mapping: 14 bits of sectors. */
export const MAX_MAPPING_SECTORS = 2 ** 14 - 1;
/** The first sector of an entry that means nothing. */
export const INVALID_FIRST_SECTOR = 2 ** 50 - 1;
/** Writers of committed layers fill an index up to a whole number of 4096 bytes. */
export const INDEX_ALIGN_ENTRIES = LSMT_RECORD_BYTES / MAPPING_BYTES;
/** The index of a layer that is sealed in place is filled up to a whole number of sectors. */
export const SEALED_INDEX_ALIGN_ENTRIES = SECTOR_BYTES / MAPPING_BYTES;
/** Readers refuse a sealed layer with more index entries, padding included. */
export const MAX_INDEX_ENTRIES = 1_000_000;
/** Segments that are held in memory for a writable layer or a stack, 23 bytes each. */
export const MAX_TABLE_SEGMENTS = 16_000_000;
/** Layers that readers stack. */
export const MAX_STACK_LAYERS = 255;

/** Tag of a warp layer's mappings whose data is in its own file. */
export const METADATA_TAG = 0;
/** Tag of a warp layer's mappings whose data is in its target. */
export const TARGET_TAG = 1;

/** Decodes a record; an error says where it was found. */
export function decodeRecord(bytes: Uint8Array, where: string): LsmtRecord {
  try {
    return lsmtRecord.decode(bytes);
  } catch (cause) {
    throw corrupt(`${where}: ${messageOf(cause)}`, { cause });
  }
}

/** What differs between the records of a layer's files; the rest has one value. */
export type RecordFields = Pick<LsmtRecord, "flags" | "virtualSize" | "uuid" | "parentUuid" | "userTag"> &
  Partial<Pick<LsmtRecord, "indexOffset" | "indexEntries">>;

export function encodeRecord({
  flags,
  virtualSize,
  uuid,
  parentUuid,
  userTag,
  indexOffset = 0,
  indexEntries = 0,
}: RecordFields): Uint8Array {
  return lsmtRecord.encode({
    magic: LSMT_MAGIC,
    recordBytes: LSMT_MEANINGFUL_BYTES,
    flags,
    indexOffset,
    indexEntries,
    virtualSize,
    uuid,
    parentUuid,
    version: 1,
    subVersion: 1,
    userTag,
  });
}

/** The words of mappings, four to an entry, as little-endian 32-bit numbers. */
export interface MappingFields {
  firstSector: number;
  sectors: number;
  mappedSector: number;
  zeroed: boolean;
  tag: number;
}

/** Decodes the mapping at `at` into `fields`, which is reused so that a long index allocates nothing. */
export function decodeMapping(view: DataView, at: number, fields: MappingFields): void {
  const logical = view.getUint32(at + 4, true);
  const mapped = view.getUint32(at + 12, true);
  fields.firstSector = view.getUint32(at, true) + (logical & 0x3ffff) * 2 ** 32;
  fields.sectors = logical >>> 18;
  fields.mappedSector = view.getUint32(at + 8, true) + (mapped & 0x7fffff) * 2 ** 32;
  fields.zeroed = (mapped & 0x800000) !== 0;
  fields.tag = mapped >>> 24;
}

export function encodeMapping(
  view: DataView,
  at: number,
  firstSector: number,
  sectors: number,
  mappedSector: number,
  zeroed: boolean,
  tag = 0,
): void {
  view.setUint32(at, firstSector % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(firstSector / 2 ** 32) + sectors * 2 ** 18, true);
  view.setUint32(at + 8, mappedSector % 2 ** 32, true);
  view.setUint32(at + 12, Math.floor(mappedSector / 2 ** 32) + (zeroed ? 0x800000 : 0) + tag * 2 ** 24, true);
}
