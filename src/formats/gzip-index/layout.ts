import { crc32cRaw } from "../../bytes/crc32c.ts";
import { raw, Struct, text, u32, u64, u8 } from "../../bytes/struct.ts";

/*
 * A gzip index. See docs/formats/gzip-index.md.
 *
 *   [header 333] [window 0] … [window n-1] [entries: 29 × n, compressed]
 */

export const GZIP_INDEX_MAGIC = "ddgzidx";
export const MAJOR_VERSION = 1;

export const gzipIndexHeader = new Struct(333, {
  magic: [0, text(8)],
  majorVersion: [8, u8],
  minorVersion: [9, u8],
  dictionaryAlgorithm: [10, u8],
  dictionaryLevel: [11, u8],
  flags: [12, u8],
  spanBytes: [13, u32],
  windowBytes: [17, u32],
  entryBytes: [21, u32],
  entryCount: [25, u64],
  storedBytes: [33, u64],
  indexBytes: [41, u64],
  contentBytes: [49, u64],
  reserved: [57, raw(256)],
  entriesOffset: [313, u64],
  entriesBytes: [321, u64],
  headerCrc: [329, u32],
});

export const gzipIndexEntry = new Struct(29, {
  contentOffset: [0, u64],
  storedOffset: [8, u64],
  windowOffset: [16, u64],
  bits: [24, u8],
  windowBytes: [25, u32],
});

/** Windows and entries as they are, or each window and all entries as a zlib stream. */
export const ALGORITHM_NONE = 0;
export const ALGORITHM_ZLIB = 1;

export const WINDOW_BYTES = 32 * 1024;

/** Content from one entry to the next that a writer may aim at: less is refused by others, more would soon be too much. */
export const MIN_SPACING_BYTES = 64 * 1024;
export const MAX_SPACING_BYTES = 8 * 2 ** 20;

/** Content that has to be decoded at once to read a byte of it: more would need too much memory. */
export const MAX_SPAN_BYTES = 32 * 2 ** 20;
/** Stored bytes of which the same holds; many small members take more room than their content. */
export const MAX_STORED_SPAN_BYTES = 64 * 2 ** 20;
export const MAX_ENTRIES = 2 ** 20;

/** The CRC-32C of a header, without inversion, over all that is before the field. */
export function headerCrc(header: Uint8Array): number {
  return crc32cRaw(0, header, 0, 329);
}
