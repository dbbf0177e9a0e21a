import { crc32cRaw } from "../../bytes/crc32c.ts";
import { corrupt, messageOf, unsupported } from "../../errors.ts";
import { MAX_TRACE_BYTES, OPERATIONS, TRACE_MAGIC, traceHeader, traceRecord, type TraceRecord } from "./layout.ts";

/** True when the bytes begin as a trace does, be it whole or not. */
export function isTrace(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true) === TRACE_MAGIC;
}

/**
 * Reads a trace. The checksum is of the bytes as they are, with whatever a writer left in those that mean nothing.
 * Throws `CORRUPT` for what is none, was cut short or changed, `UNSUPPORTED` for more records than anybody needs.
 * @param name what to call the file in messages
 */
export function parseTrace(bytes: Uint8Array, name: string): TraceRecord[] {
  if (!isTrace(bytes)) throw corrupt(`${name}: begins with ${hexOf(bytes.subarray(0, 4))}, expected the magic of a trace, 2018efc2`);
  if (bytes.length > MAX_TRACE_BYTES) throw unsupported(`${name}: a trace of ${bytes.length} bytes, expected at most ${MAX_TRACE_BYTES}`);
  const { size } = traceHeader;
  if (bytes.length < size) throw corrupt(`${name}: a trace of ${bytes.length} bytes, expected ${size} at least; record it again`);
  const { dataBytes, checksum } = placed(`${name}: header`, () => traceHeader.decode(bytes));
  if (dataBytes % traceRecord.size !== 0 || size + dataBytes !== bytes.length) {
    throw corrupt(
      `${name}: a trace of ${bytes.length} bytes, its header says ${size} and ${dataBytes} of records; it was cut short: record it again`,
    );
  }
  const found = crc32cRaw(0, bytes, size);
  if (found !== checksum)
    throw corrupt(`${name}: records have the checksum ${hex(found)}, the header says ${hex(checksum)}; record it again`);
  return Array.from({ length: dataBytes / traceRecord.size }, (_, record) =>
    placed(`${name}: record ${record}`, () => parseRecord(bytes, size + record * traceRecord.size)),
  );
}

function parseRecord(bytes: Uint8Array, at: number): TraceRecord {
  const { op: code, layer, offset, length } = traceRecord.decode(bytes, at);
  const op = code === OPERATIONS.read ? "read" : code === OPERATIONS.write ? "write" : undefined;
  if (op === undefined) throw corrupt(`operation is 0x${code.toString(16)}, expected 0x52 (read) or 0x57 (write)`);
  if (!Number.isSafeInteger(offset + length)) throw corrupt(`${length} bytes at ${offset} end beyond 2^53`);
  return { op, layer, offset, length };
}

function placed<T>(where: string, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    throw corrupt(`${where}: ${messageOf(cause)}`, { cause });
  }
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex") || "nothing";
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
