import { Struct, u32, u64, u8 } from "../../bytes/struct.ts";

/*
 * What was read of an image's layers, in order. See docs/formats/trace.md.
 *
 *   [header 24] [record 0] … [record n-1]
 */

export const TRACE_MAGIC = 0xc2ef1820;

export const traceHeader = new Struct(24, {
  magic: [0, u32],
  dataBytes: [8, u64],
  checksum: [16, u32],
});

export const traceRecord = new Struct(24, {
  op: [0, u8],
  layer: [4, u32],
  length: [8, u64],
  offset: [16, u64],
});

/** What the operations are written as. */
export const OPERATIONS = { read: 0x52, write: 0x57 } as const;

/** Records of one file: 25 MB. */
export const MAX_TRACE_RECORDS = 2 ** 20;
export const MAX_TRACE_BYTES = traceHeader.size + MAX_TRACE_RECORDS * traceRecord.size;

/** The longest read that other replayers have room for; what is written here is not longer. */
export const MAX_RECORD_BYTES = 2 ** 20;

/**
 * Added to a layer's index where a record is of the layer's second file: the content of the layer that a turboOCI layer was made
 * from. No image has so many layers, and replayers pass over layers that they do not have.
 */
export const TARGET_LAYERS = 2 ** 31;

/** One access to a file of a layer, in bytes of the file: behind the tar around it, and uncompressed. */
export interface TraceRecord {
  readonly op: keyof typeof OPERATIONS;
  /** Index of the layer, the lowest being 0; `TARGET_LAYERS` more for its target. */
  readonly layer: number;
  readonly offset: number;
  readonly length: number;
}
