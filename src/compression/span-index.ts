import { corrupt } from "../errors.ts";

/** Where a range begins and ends, in bytes. */
export interface StoredRange {
  readonly start: number;
  readonly end: number;
}

/**
 * How to read compressed data from the middle: its content is cut into spans, none of them empty, which can each be decoded
 * alone. What reads them need not know how they are compressed.
 */
export interface SpanIndex {
  /** Size of the data as it is stored. */
  readonly storedBytes: number;
  readonly contentBytes: number;
  readonly spanCount: number;
  /** Where a span begins in the content; that of `spanCount` is the content's end. */
  contentOffset(span: number): number;
  /** What `decode` needs of the stored data. */
  storedRange(span: number): StoredRange;
  /** The content of a span, exactly. Throws `CORRUPT` when the stored bytes are not what the index says. */
  decode(span: number, stored: Uint8Array): Uint8Array;
}

/** Content of a span, unless the data leaves no choice. */
export const SPAN_BYTES = 2 ** 20;

/** The span that a byte of the content, which must be inside, lies in. */
export function spanAt(index: Pick<SpanIndex, "spanCount" | "contentOffset">, contentOffset: number): number {
  let [low, high] = [0, index.spanCount];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (index.contentOffset(middle) <= contentOffset) low = middle;
    else high = middle;
  }
  return low;
}

/** The index of data that is not compressed: spans of the same size, of which the last may be shorter. */
export class PlainSpans implements SpanIndex {
  readonly contentBytes: number;
  readonly spanCount: number;

  constructor(contentBytes: number) {
    this.contentBytes = contentBytes;
    this.spanCount = Math.ceil(contentBytes / SPAN_BYTES);
  }

  get storedBytes(): number {
    return this.contentBytes;
  }

  contentOffset(span: number): number {
    return Math.min(span * SPAN_BYTES, this.contentBytes);
  }

  storedRange(span: number): StoredRange {
    return { start: this.contentOffset(span), end: this.contentOffset(span + 1) };
  }

  decode(span: number, stored: Uint8Array): Uint8Array {
    const { start, end } = this.storedRange(span);
    if (stored.length !== end - start) throw corrupt(`span ${span} is ${stored.length} bytes, expected ${end - start}`);
    return stored;
  }
}
