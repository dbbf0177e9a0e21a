import { crc32cRaw } from "../../bytes/crc32c.ts";
import { Struct, text, u32, u64 } from "../../bytes/struct.ts";

/*
 * Where the frames of a zstd blob are. See docs/formats/zstd-index.md.
 *
 *   [header 32] [entry 0] … [entry n-1] [CRC-32C 4]
 */

export const ZSTD_INDEX_MAGIC = "lzzstdx";
export const ZSTD_INDEX_VERSION = 1;
export const CRC_BYTES = 4;

export const zstdIndexHeader = new Struct(32, {
  magic: [0, text(8)],
  version: [8, u32],
  spanCount: [12, u32],
  storedBytes: [16, u64],
  contentBytes: [24, u64],
});

export const zstdIndexEntry = new Struct(20, {
  contentOffset: [0, u64],
  storedOffset: [8, u64],
  storedBytes: [16, u32],
});

/** Small frames share a span until it has this much content. */
export const GROUP_BYTES = 2 ** 20;
/** Content of a frame: more would need too much memory to read a byte of it. */
export const MAX_FRAME_BYTES = 4 * 2 ** 20;
/** A span that is almost full, and the largest frame. */
export const MAX_SPAN_BYTES = GROUP_BYTES - 1 + MAX_FRAME_BYTES;
export const MAX_STORED_SPAN_BYTES = 8 * 2 ** 20;

/** The CRC-32C, in its usual form, of all that is before it. */
export function zstdIndexCrc(bytes: Uint8Array): number {
  return ~crc32cRaw(~0, bytes, 0, bytes.length - CRC_BYTES) >>> 0;
}
