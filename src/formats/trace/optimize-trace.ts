import { unsupported } from "../../errors.ts";
import { MAX_RECORD_BYTES, MAX_TRACE_RECORDS, type TraceRecord } from "./layout.ts";

/** Memory is bounded by this; recordings of images are far below. */
const MAX_WINDOWS = 2 * MAX_TRACE_RECORDS;

interface Piece {
  readonly layer: number;
  readonly start: number;
  end: number;
  /** Of the record that named its first byte first. */
  order: number;
}

/**
 * The same reads with each byte named once, in the order of first access. Within each aligned MiB of a layer's file, reads that
 * touch or are at most `gapBytes` apart become one, at the place of the earliest: so no request is larger, and nothing is fetched
 * much earlier than it was read. Writes are left out. Throws `UNSUPPORTED` for more than that can be done with.
 */
export function optimizeTrace(records: readonly TraceRecord[], gapBytes: number): TraceRecord[] {
  const reads = records.filter(({ op }) => op === "read");
  const windowCount = reads.reduce((count, { length }) => count + Math.ceil(length / MAX_RECORD_BYTES), 0);
  if (windowCount > MAX_WINDOWS)
    throw unsupported(`the trace names ${windowCount} MiB, expected at most ${MAX_WINDOWS}; no image has so much`);
  const windows = new Map<string, Piece[]>();
  for (const [order, { layer, offset, length }] of reads.entries()) {
    for (let start = offset; start < offset + length;) {
      const window = Math.floor(start / MAX_RECORD_BYTES);
      const end = Math.min((window + 1) * MAX_RECORD_BYTES, offset + length);
      const key = `${layer} ${window}`;
      const pieces = windows.get(key) ?? [];
      pieces.push({ layer, start, end, order });
      windows.set(key, pieces);
      start = end;
    }
  }
  const joined = [...windows.values()].flatMap((pieces) => joinPieces(pieces, gapBytes));
  return joined
    .toSorted((a, b) => a.order - b.order || a.start - b.start)
    .map(({ layer, start, end }): TraceRecord => ({ op: "read", layer, offset: start, length: end - start }));
}

function joinPieces(pieces: readonly Piece[], gapBytes: number): Piece[] {
  const joined: Piece[] = [];
  for (const piece of pieces.toSorted((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last !== undefined && piece.start <= last.end + gapBytes) {
      last.end = Math.max(last.end, piece.end);
      last.order = Math.min(last.order, piece.order);
    } else {
      joined.push({ ...piece });
    }
  }
  return joined;
}
