import { MAX_RECORD_BYTES, type TraceRecord } from "./layout.ts";

/** Records that one recording keeps: 6 MB of trace. */
const MAX_RECORDED = 2 ** 18;

export interface TraceRecorderOptions {
  readonly maxRecords?: number | undefined;
  /** Milliseconds since the recording began. */
  readonly now?: (() => number) | undefined;
  /** Hears once that something was read and is not noted, as there are `maxRecords` records. */
  readonly onFull?: (() => void) | undefined;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * Notes what is read of layers, each byte once, in the order of first access. A read that goes on where the last one of its layer
 * ended becomes one record with it. Memory is bounded: after `maxRecords` records, nothing new is noted.
 */
export class TraceRecorder {
  /** Bytes of all records. */
  bytes = 0;
  /** Something was read that is not in the records. */
  overflowed = false;
  #isStopped = false;
  /** When each record was begun, as `now` says. */
  readonly times: number[] = [];
  readonly #maxRecords: number;
  readonly #now: () => number;
  readonly #onFull: () => void;
  readonly #records: { op: "read"; layer: number; offset: number; length: number }[] = [];
  /** What was read of each layer: ascending, disjoint, not touching. */
  readonly #known = new Map<number, Range[]>();

  constructor({ maxRecords = MAX_RECORDED, now = () => 0, onFull = () => {} }: TraceRecorderOptions = {}) {
    this.#maxRecords = maxRecords;
    this.#now = now;
    this.#onFull = onFull;
  }

  /** In order of first access. */
  get records(): readonly TraceRecord[] {
    return this.#records;
  }

  add(layer: number, offset: number, length: number): void {
    if (length === 0 || this.overflowed || this.#isStopped) return;
    const known = this.#known.get(layer) ?? [];
    this.#known.set(layer, known);
    for (const { start, end } of missingOf(known, offset, offset + length)) {
      for (let at = start; at < end;) at += this.#note(layer, at, end - at);
      if (this.overflowed) return;
      join(known, start, end);
    }
  }

  /** Nothing is noted any more. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Bytes that fit into the record. */
  #note(layer: number, offset: number, length: number): number {
    const last = this.#records.at(-1);
    if (last !== undefined && last.layer === layer && last.offset + last.length === offset && last.length < MAX_RECORD_BYTES) {
      const more = Math.min(length, MAX_RECORD_BYTES - last.length);
      last.length += more;
      this.bytes += more;
      return more;
    }
    if (this.#records.length === this.#maxRecords) {
      this.overflowed = true;
      this.#onFull();
      return length;
    }
    const whole = Math.min(length, MAX_RECORD_BYTES);
    this.#records.push({ op: "read", layer, offset, length: whole });
    this.times.push(this.#now());
    this.bytes += whole;
    return whole;
  }
}

/** Position of the first range that ends at `offset` or behind. */
function firstAt(ranges: readonly Range[], offset: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[middle].end < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

function missingOf(ranges: readonly Range[], start: number, end: number): Range[] {
  const missing: Range[] = [];
  let at = start;
  for (let i = firstAt(ranges, start); i < ranges.length && ranges[i].start < end; i++) {
    if (ranges[i].start > at) missing.push({ start: at, end: ranges[i].start });
    at = Math.max(at, ranges[i].end);
  }
  if (at < end) missing.push({ start: at, end });
  return missing;
}

function join(ranges: Range[], start: number, end: number): void {
  const first = firstAt(ranges, start);
  let stop = first;
  while (stop < ranges.length && ranges[stop].start <= end) stop++;
  const touched = ranges.slice(first, stop);
  ranges.splice(first, stop - first, {
    start: Math.min(start, touched[0]?.start ?? start),
    end: Math.max(end, touched.at(-1)?.end ?? end),
  });
}
