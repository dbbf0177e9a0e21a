import { crc32cRaw } from "../../bytes/crc32c.ts";
import { raw, Struct, text, u32, u64 } from "../../bytes/struct.ts";

/*
 * The digests of a layer's spans. See docs/formats/span-digests.md.
 *
 *   [header 24] [entry 0] … [entry n-1] [CRC-32C 4]
 */

export const SPAN_DIGESTS_MAGIC = "lzspans";
export const SPAN_DIGESTS_VERSION = 1;
export const CRC_BYTES = 4;

export const spanDigestsHeader = new Struct(24, {
  magic: [0, text(8)],
  version: [8, u32],
  spanCount: [12, u32],
  contentBytes: [16, u64],
});

export const spanDigestsEntry = new Struct(40, {
  contentOffset: [0, u64],
  sha256: [8, raw(32)],
});

/** The CRC-32C, in its usual form, of all that is before it. */
export function spanDigestsCrc(bytes: Uint8Array): number {
  return ~crc32cRaw(~0, bytes, 0, bytes.length - CRC_BYTES) >>> 0;
}
