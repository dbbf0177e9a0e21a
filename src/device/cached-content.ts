import { checkRange, type ByteSource } from "../bytes/source.ts";
import type { CachedSource } from "../cache/cached-source.ts";
import { spanAt, type SpanIndex } from "../compression/span-index.ts";
import { LazyError } from "../errors.ts";

/** How far a read goes beyond what is asked, on either side, where spans are longer than usual. */
const MAX_WIDENING_BYTES = 4 * 2 ** 20;

/**
 * Decoded content, read through a cache on disk. Where something is missing, all of its span is read, as far as whole chunks go:
 * it is decoded at once anyway, and would be again for every other part that is asked for later.
 */
export class CachedContent implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #content: ByteSource;
  readonly #cached: CachedSource;
  readonly #index: SpanIndex;

  /** `index` knows the spans of `content`, and `cached` is `content` through the cache. Closing closes both. */
  constructor(content: ByteSource, cached: CachedSource, index: SpanIndex) {
    this.name = content.name;
    this.size = content.size;
    this.#content = content;
    this.#cached = cached;
    this.#index = index;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const { chunkBytes } = this.#cached.shared.data;
    const firstChunk = Math.floor(offset / chunkBytes);
    const endChunk = Math.ceil((offset + length) / chunkBytes);
    if (length === 0 || this.#isStored(firstChunk, endChunk)) return await this.#cached.read(offset, length);
    const start = Math.min(this.#spanStart(offset, chunkBytes), firstChunk * chunkBytes);
    const end = Math.min(Math.max(this.#spanEnd(offset + length, chunkBytes), endChunk * chunkBytes), this.size);
    try {
      const bytes = await this.#cached.read(start, end - start);
      return new Uint8Array(bytes.subarray(offset - start, offset - start + length)); // Buffer.slice would share all that was read
    } catch (error) {
      const isOthers =
        spanAt(this.#index, start) < spanAt(this.#index, offset) || spanAt(this.#index, end - 1) > spanAt(this.#index, offset + length - 1);
      if (!(error instanceof LazyError && error.code === "CORRUPT" && isOthers)) throw error;
      return await this.#content.read(offset, length); // a neighbour in the same chunk may be what cannot be had
    }
  }

  async close(): Promise<void> {
    await this.#cached.close();
  }

  #isStored(firstChunk: number, endChunk: number): boolean {
    for (let chunk = firstChunk; chunk < endChunk; chunk++) if (!this.#cached.shared.isStored(chunk)) return false;
    return true;
  }

  /** Where the first whole chunk of the span begins that `offset` is in. */
  #spanStart(offset: number, chunkBytes: number): number {
    const start = this.#index.contentOffset(spanAt(this.#index, offset));
    return Math.ceil(Math.max(start, offset - MAX_WIDENING_BYTES) / chunkBytes) * chunkBytes;
  }

  /** Where the last whole chunk of the span ends that the byte before `end` is in. */
  #spanEnd(end: number, chunkBytes: number): number {
    const spanEnd = this.#index.contentOffset(spanAt(this.#index, end - 1) + 1);
    const limit = Math.min(spanEnd, end + MAX_WIDENING_BYTES);
    return limit === this.size ? limit : Math.floor(limit / chunkBytes) * chunkBytes;
  }
}
