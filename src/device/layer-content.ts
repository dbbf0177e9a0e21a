import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { checkRange, type ByteSource } from "../bytes/source.ts";
import { spanAt, type SpanIndex, type StoredRange } from "../compression/span-index.ts";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import type { SpanDigests } from "../formats/span-digests/span-digests.ts";
import { MemoryGate } from "./memory-gate.ts";

/** Stored bytes that one read of the blob asks for, unless a single span has more. */
const MAX_READ_BYTES = 8 * 2 ** 20;
/** Content that comes out of them, likewise. */
const MAX_RUN_BYTES = 16 * 2 ** 20;
/** Decoded spans that are kept. */
const KEPT_BYTES = 8 * 2 ** 20;
/** Stored bytes and content that are underway. */
const WORKING_BYTES = 48 * 2 ** 20;

/**
 * The uncompressed content of a layer blob, read by ranges of the blob. Each span is decoded once for all who wait for it,
 * and held against its digest before any of its bytes is used; without digests only what the compression itself notices is
 * noticed. A span that is wrong is fetched once more; then its readers get `CORRUPT`.
 * Throws `CORRUPT` when index, digests and blob do not belong together. Closing the content closes the blob.
 */
export function openLayerContent(blob: ByteSource, index: SpanIndex, digests: SpanDigests | undefined): ByteSource {
  if (blob.size !== index.storedBytes) {
    throw corrupt(`${blob.name}: ${blob.size} bytes, but its index is of a blob of ${index.storedBytes}: it does not belong to this blob`);
  }
  if (digests !== undefined) checkAgreement(blob.name, index, digests);
  return new LayerContent(blob, index, digests);
}

function checkAgreement(name: string, index: SpanIndex, digests: SpanDigests): void {
  const { contentBytes, spans } = digests;
  if (contentBytes !== index.contentBytes || spans.length !== index.spanCount) {
    throw corrupt(
      `${name}: the index has ${index.spanCount} spans of ${index.contentBytes} bytes, the digests are of ${spans.length} spans of ${contentBytes} bytes; they do not belong together`,
    );
  }
  const odd = spans.findIndex(({ contentOffset }, span) => contentOffset !== index.contentOffset(span));
  if (odd < 0) return;
  throw corrupt(
    `${name}: span ${odd} begins at ${index.contentOffset(odd)} in the index, at ${spans[odd].contentOffset} in the digests; they do not belong together`,
  );
}

class LayerContent implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #blob: ByteSource;
  readonly #index: SpanIndex;
  readonly #digests: SpanDigests | undefined;
  /** The spans that were used last, those first that were not used for the longest time. */
  readonly #kept = new Map<number, Uint8Array>();
  #keptBytes = 0;
  readonly #decoding = new Map<number, PromiseWithResolvers<Uint8Array>>();
  readonly #gate = new MemoryGate(WORKING_BYTES);

  constructor(blob: ByteSource, index: SpanIndex, digests: SpanDigests | undefined) {
    this.name = `${blob.name} (content)`;
    this.size = index.contentBytes;
    this.#blob = blob;
    this.#index = index;
    this.#digests = digests;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const target = Buffer.allocUnsafe(length);
    await this.#fill(offset, target);
    return target;
  }

  async readInto(offset: number, target: Uint8Array): Promise<void> {
    checkRange(this, offset, target.length);
    await this.#fill(offset, target);
  }

  async close(): Promise<void> {
    this.#kept.clear();
    this.#keptBytes = 0;
    await this.#blob.close();
  }

  async #fill(offset: number, target: Uint8Array): Promise<void> {
    const end = offset + target.length;
    if (end === offset) return;
    const lastSpan = spanAt(this.#index, end - 1);
    for (let span = spanAt(this.#index, offset); span <= lastSpan; span++) {
      const start = this.#index.contentOffset(span);
      const content = this.#keptSpan(span) ?? (await this.#decoded(span, lastSpan));
      target.set(content.subarray(Math.max(0, offset - start), end - start), Math.max(0, start - offset));
    }
  }

  #keptSpan(span: number): Uint8Array | undefined {
    const content = this.#kept.get(span);
    if (content === undefined) return undefined;
    this.#kept.delete(span);
    this.#kept.set(span, content);
    return content;
  }

  async #decoded(span: number, lastSpan: number): Promise<Uint8Array> {
    if (!this.#decoding.has(span)) this.#startRun(span, this.#runEnd(span, lastSpan));
    return await this.#decoding.get(span)!.promise;
  }

  /** Where the run of spans that nobody has asked for ends that can be fetched in one read. */
  #runEnd(first: number, lastSpan: number): number {
    const { start } = this.#index.storedRange(first);
    let end = first + 1;
    while (end <= lastSpan && !this.#kept.has(end) && !this.#decoding.has(end)) {
      const isSmall = this.#index.storedRange(end).end - start <= MAX_READ_BYTES;
      if (!isSmall || this.#index.contentOffset(end + 1) - this.#index.contentOffset(first) > MAX_RUN_BYTES) break;
      end++;
    }
    return end;
  }

  #startRun(first: number, end: number): void {
    for (let span = first; span < end; span++) {
      const waiting = Promise.withResolvers<Uint8Array>();
      waiting.promise.catch(() => {}); // its readers hear of it; there may be none, if they failed before
      this.#decoding.set(span, waiting);
    }
    const storedBytes = this.#index.storedRange(end - 1).end - this.#index.storedRange(first).start;
    const contentBytes = this.#index.contentOffset(end) - this.#index.contentOffset(first);
    void this.#gate.run(storedBytes + contentBytes, async () => await this.#decodeRun(first, end));
  }

  /** Settles the run's spans, all of them, whatever happens. */
  async #decodeRun(first: number, end: number): Promise<void> {
    const { start } = this.#index.storedRange(first);
    let stored: Uint8Array;
    try {
      stored = await this.#fetch({ start, end: this.#index.storedRange(end - 1).end });
    } catch (error) {
      for (let span = first; span < end; span++) this.#settle(span, ({ reject }) => reject(error));
      return;
    }
    for (let span = first; span < end; span++) {
      const own = this.#index.storedRange(span);
      try {
        const content = await this.#decode(span, stored.subarray(own.start - start, own.end - start));
        this.#keep(span, content);
        this.#settle(span, ({ resolve }) => resolve(content));
      } catch (error) {
        this.#settle(span, ({ reject }) => reject(error));
      }
      await setImmediate(); // readers take what they wait for, and others get their turn, before more is decoded
    }
  }

  #settle(span: number, how: (waiting: PromiseWithResolvers<Uint8Array>) => void): void {
    how(this.#decoding.get(span)!);
    this.#decoding.delete(span);
  }

  async #fetch({ start, end }: StoredRange): Promise<Uint8Array> {
    return await this.#blob.read(start, end - start);
  }

  async #decode(span: number, stored: Uint8Array): Promise<Uint8Array> {
    try {
      return this.#verified(span, stored);
    } catch (error) {
      if (!(error instanceof LazyError && error.code === "CORRUPT")) throw error;
    }
    const range = this.#index.storedRange(span);
    this.#blob.distrust?.();
    const again = await this.#fetch(range);
    try {
      return this.#verified(span, again);
    } catch (error) {
      const [start, end] = [this.#index.contentOffset(span), this.#index.contentOffset(span + 1)];
      throw corrupt(
        `${this.#blob.name}: bytes [${start}, ${end}) of the content, stored in [${range.start}, ${range.end}), are not what was converted: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  #verified(span: number, stored: Uint8Array): Uint8Array {
    const content = this.#index.decode(span, stored);
    const expected = this.#digests?.spans[span].sha256;
    if (expected === undefined) return content;
    const found = createHash("sha256").update(content).digest();
    if (found.equals(expected)) return content;
    throw corrupt(`SHA-256 ${found.toString("hex")}, expected ${Buffer.from(expected).toString("hex")}`);
  }

  #keep(span: number, content: Uint8Array): void {
    if (content.length > KEPT_BYTES) return;
    const isPart = content.byteLength < content.buffer.byteLength; // all that was read with it would stay in memory
    this.#kept.set(span, isPart ? new Uint8Array(content) : content);
    this.#keptBytes += content.length;
    for (const [oldest, bytes] of this.#kept) {
      if (this.#keptBytes <= KEPT_BYTES) break;
      this.#kept.delete(oldest);
      this.#keptBytes -= bytes.length;
    }
  }
}
