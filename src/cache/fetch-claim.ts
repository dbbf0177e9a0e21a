import { bySegment, CLAIM_MS, type SegmentFile } from "./segment-file.ts";

/** A claim is made known again so often. */
const RENEWAL_MS = CLAIM_MS / 2;
/** Of a fetch that takes longer others need not wait for the end: their own may go another way. */
const MAX_RENEWALS = 10;

/** Tells other processes, for as long as a fetch takes, that they need not fetch these chunks. Never fails: it is a courtesy. */
export class FetchClaim {
  readonly #segments: ReadonlyMap<number, SegmentFile>;
  readonly #first: number;
  readonly #count: number;
  readonly #timer: NodeJS.Timeout;
  #renewals = 0;

  /** @param segments the open ones; chunks of others are not claimed */
  constructor(segments: ReadonlyMap<number, SegmentFile>, first: number, count: number) {
    this.#segments = segments;
    this.#first = first;
    this.#count = count;
    this.#make();
    this.#timer = setInterval(() => this.#renew(), RENEWAL_MS).unref();
  }

  /** What is in the slots stays until it is replaced, or out of date. */
  end(): void {
    clearInterval(this.#timer);
  }

  #renew(): void {
    if (++this.#renewals === MAX_RENEWALS) this.end();
    this.#make();
  }

  #make(): void {
    tell(this.#segments, this.#first, this.#count, async (segment, first, count) => await segment.claim(first, count));
  }
}

/** Nobody waits any more for chunks that were claimed. */
export function withdrawClaim(segments: ReadonlyMap<number, SegmentFile>, first: number, count: number): void {
  tell(segments, first, count, async (segment, firstChunk, chunks) => await segment.clear(firstChunk, chunks));
}

function tell(
  segments: ReadonlyMap<number, SegmentFile>,
  first: number,
  count: number,
  say: (segment: SegmentFile, first: number, count: number) => Promise<void>,
): void {
  for (const part of bySegment(first, count)) {
    const segment = segments.get(part.index);
    if (segment !== undefined) say(segment, part.first, part.count).catch(() => {});
  }
}
