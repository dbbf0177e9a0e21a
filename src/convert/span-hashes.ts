import { createHash, subtle, type Hash } from "node:crypto";
import type { SpanDigest, SpanDigests } from "../formats/span-digests/span-digests.ts";

/** Longer spans are hashed as they come, on this thread. */
const MAX_COLLECTED_BYTES = 2 * 2 ** 20;
/** Spans that are being hashed on other threads. */
const MAX_HASHING = 4;

interface Span {
  readonly contentOffset: number;
  readonly sha256: Uint8Array | Promise<Uint8Array>;
}

/** Hashes content span by span, where the spans' ends become known while it comes. */
export class SpanHashes {
  readonly #spans: Span[] = [];
  readonly #ends: number[] = [];
  readonly #collected = Buffer.allocUnsafe(MAX_COLLECTED_BYTES);
  #hash: Hash | undefined;
  #hashing = 0;
  #start = 0;
  #end = 0;

  /** One span ends here, another begins. Not before the last such place, nor before content that has come. */
  endAt(contentOffset: number): void {
    this.#ends.push(contentOffset);
  }

  content(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#ends[0] === this.#end) {
        this.#ends.shift();
        this.#endSpan();
        continue;
      }
      const taken = bytes.subarray(at, at + (this.#ends[0] ?? Infinity) - this.#end);
      this.#add(taken);
      at += taken.length;
    }
  }

  async finish(): Promise<SpanDigests> {
    this.#endSpan();
    const spans = this.#spans.map(async ({ contentOffset, sha256 }): Promise<SpanDigest> => ({ contentOffset, sha256: await sha256 }));
    return { contentBytes: this.#end, spans: await Promise.all(spans) };
  }

  #add(bytes: Uint8Array): void {
    const length = this.#end - this.#start;
    this.#end += bytes.length;
    if (this.#hash === undefined && length + bytes.length <= MAX_COLLECTED_BYTES) this.#collected.set(bytes, length);
    else (this.#hash ??= createHash("sha256").update(this.#collected.subarray(0, length))).update(bytes);
  }

  #endSpan(): void {
    if (this.#end === this.#start) return;
    this.#spans.push({ contentOffset: this.#start, sha256: this.#digest(this.#collected.subarray(0, this.#end - this.#start)) });
    this.#hash = undefined;
    this.#start = this.#end;
  }

  #digest(collected: Uint8Array<ArrayBuffer>): Uint8Array | Promise<Uint8Array> {
    if (this.#hash !== undefined) return this.#hash.digest();
    if (this.#hashing >= MAX_HASHING) return createHash("sha256").update(collected).digest();
    this.#hashing++;
    // It takes a copy, so the next span can be collected in the same place.
    const digest = subtle.digest("SHA-256", collected).then((bytes) => new Uint8Array(bytes));
    const counted = digest.finally(() => this.#hashing--);
    counted.catch(() => {}); // `finish` reports it, if it is called
    return counted;
  }
}
