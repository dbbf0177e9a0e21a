import type { BufferPool } from "./buffer-pool.ts";
import type { Extent } from "./nbd-export.ts";
import {
  ALLOCATION_CONTEXT_ID,
  ALLOCATION_FLAGS,
  CHUNK_DONE,
  CHUNK_MAGIC,
  chunkError,
  chunkHeader,
  CHUNKS,
  dataPlace,
  extentRecord,
  number32,
  SIMPLE_REPLY_MAGIC,
  simpleReply,
} from "./protocol.ts";

/** Extents in one reply; a client asks again for what comes behind. */
const MAX_EXTENTS = 1024;
/** What is looked at in one go: few bytes hold few stretches, and a full reply needs no more. */
const WINDOW_BYTES = 2 ** 20;

export function encodeSimpleReply(cookie: bigint, error = 0): Uint8Array {
  return simpleReply.encode({ magic: SIMPLE_REPLY_MAGIC, error, cookie });
}

/** A structured reply of a single chunk that says what went wrong. */
export function encodeErrorChunk(cookie: bigint, error: number): Uint8Array {
  const bytes = new Uint8Array(chunkHeader.size + chunkError.size);
  encodeChunkHeader(bytes, CHUNKS.ERROR, cookie);
  chunkError.encodeInto(bytes, { error, textBytes: 0 }, chunkHeader.size);
  return bytes;
}

/** A successful reply to a read, in memory of the pool: complete but for the data, which belongs at its end. */
export function startReadReply(
  { cookie, offset, length }: { readonly cookie: bigint; readonly offset: number; readonly length: number },
  structured: boolean,
  pool: BufferPool,
): { reply: Buffer; data: Buffer } {
  if (!structured) {
    const reply = pool.take(simpleReply.size + length);
    simpleReply.encodeInto(reply, { magic: SIMPLE_REPLY_MAGIC, error: 0, cookie });
    return { reply, data: reply.subarray(simpleReply.size) };
  }
  const isEmpty = length === 0; // data chunks are not
  const headBytes = chunkHeader.size + (isEmpty ? 0 : dataPlace.size);
  const reply = pool.take(headBytes + length);
  encodeChunkHeader(reply, isEmpty ? CHUNKS.NONE : CHUNKS.OFFSET_DATA, cookie);
  if (!isEmpty) dataPlace.encodeInto(reply, { offset }, chunkHeader.size);
  return { reply, data: reply.subarray(headBytes) };
}

/** The extents of a range, from its front; as many as one reply holds. */
export function encodeExtents(
  cookie: bigint,
  offset: number,
  length: number,
  onlyOne: boolean,
  extentsOf: (offset: number, length: number) => readonly Extent[],
): Uint8Array {
  const extents = joinExtents(offset, length, onlyOne ? 1 : MAX_EXTENTS, extentsOf);
  const bytes = new Uint8Array(chunkHeader.size + number32.size + extents.length * extentRecord.size);
  encodeChunkHeader(bytes, CHUNKS.BLOCK_STATUS, cookie);
  number32.encodeInto(bytes, { value: ALLOCATION_CONTEXT_ID }, chunkHeader.size);
  let at = chunkHeader.size + number32.size;
  for (const extent of extents) {
    const flags = extent.isHole ? ALLOCATION_FLAGS.HOLE | ALLOCATION_FLAGS.ZERO : 0;
    extentRecord.encodeInto(bytes, { bytes: extent.bytes, flags }, at);
    at += extentRecord.size;
  }
  return bytes;
}

/** Neighbours of the same kind are one; stops where one more would be too many. */
function joinExtents(
  offset: number,
  length: number,
  maxExtents: number,
  extentsOf: (offset: number, length: number) => readonly Extent[],
): Extent[] {
  const extents: { bytes: number; isHole: boolean }[] = [];
  const end = offset + length;
  for (let at = offset; at < end; at += WINDOW_BYTES) {
    for (const { bytes, isHole } of extentsOf(at, Math.min(WINDOW_BYTES, end - at))) {
      const last = extents.at(-1);
      if (last?.isHole === isHole) last.bytes += bytes;
      else if (extents.length === maxExtents) return extents;
      else extents.push({ bytes, isHole });
    }
  }
  return extents;
}

/** The head of a chunk that fills `bytes` and is the reply's only one. */
function encodeChunkHeader(bytes: Uint8Array, type: number, cookie: bigint): void {
  chunkHeader.encodeInto(bytes, { magic: CHUNK_MAGIC, flags: CHUNK_DONE, type, cookie, length: bytes.length - chunkHeader.size });
}
