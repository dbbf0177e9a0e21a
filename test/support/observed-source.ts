import { createHash } from "node:crypto";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { LazyError } from "../../src/errors.ts";

/** Bytes that look random, the same for the same seed. */
export function content(size: number, seed = 1): Uint8Array {
  const bytes = Buffer.alloc(size);
  for (let i = 0, state = seed; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** What a cache knows a blob by. */
export function keyOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Remembers what was asked of it; fails while `failing`. */
export class ObservedSource implements ByteSource {
  readonly name = "observed";
  readonly reads: [offset: number, length: number][] = [];
  failing = false;
  /** Changes what is read. */
  spoil: (bytes: Uint8Array, offset: number) => void = () => {};
  readonly #inner: MemorySource;
  readonly #delayMs: number;

  constructor(bytes: Uint8Array, delayMs = 0) {
    this.#inner = new MemorySource(bytes);
    this.#delayMs = delayMs;
  }

  get size(): number {
    return this.#inner.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.reads.push([offset, length]);
    await (this.#delayMs > 0 ? sleep(this.#delayMs) : setImmediate());
    if (this.failing) throw new LazyError("UNAVAILABLE", "observed: gone");
    const bytes = await this.#inner.read(offset, length);
    this.spoil(bytes, offset);
    return bytes;
  }

  async close(): Promise<void> {}
}
