import { crc32cRaw } from "../../bytes/crc32c.ts";
import { LazyError } from "../../errors.ts";
import { MAX_TRACE_RECORDS, OPERATIONS, TRACE_MAGIC, traceHeader, traceRecord, type TraceRecord } from "./layout.ts";

/** A trace file of these records, in their order; bytes without a meaning are zero. Throws `USAGE` for more than a file may have. */
export function encodeTrace(records: readonly TraceRecord[]): Uint8Array {
  if (records.length > MAX_TRACE_RECORDS) {
    throw new LazyError("USAGE", `a trace of ${records.length} records, expected at most ${MAX_TRACE_RECORDS}`);
  }
  const { size } = traceHeader;
  const bytes = new Uint8Array(size + records.length * traceRecord.size);
  for (const [index, { op, layer, offset, length }] of records.entries()) {
    traceRecord.encodeInto(bytes, { op: OPERATIONS[op], layer, offset, length }, size + index * traceRecord.size);
  }
  traceHeader.encodeInto(bytes, { magic: TRACE_MAGIC, dataBytes: bytes.length - size, checksum: crc32cRaw(0, bytes, size) });
  return bytes;
}
