/** Room for the headers that go in front of data, whose length is mostly a power of two. */
const HEADER_BYTES = 64;
const MIN_DATA_BYTES = 4096;
const MAX_DATA_BYTES = 2 ** 20;

/** Memory that is used again and again: collecting what large replies leave behind would cost more than reading them. */
export class BufferPool {
  readonly #maxBytes: number;
  readonly #free = new Map<number, ArrayBuffer[]>();
  readonly #lent = new WeakSet<ArrayBufferLike>();
  #freeBytes = 0;

  /** At most so much is kept that nobody uses. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Memory with anything in it. */
  take(bytes: number): Buffer {
    const size = sizeFor(bytes);
    if (size === undefined) return Buffer.allocUnsafeSlow(bytes);
    const known = this.#free.get(size)?.pop();
    if (known !== undefined) this.#freeBytes -= size;
    const memory = known ?? Buffer.allocUnsafeSlow(size).buffer;
    this.#lent.add(memory);
    return Buffer.from(memory, 0, bytes);
  }

  /** Takes memory back that nobody uses any more. What is not from here, or was given back before, is left alone. */
  give({ buffer }: Uint8Array): void {
    if (!(buffer instanceof ArrayBuffer) || !this.#lent.delete(buffer)) return;
    const size = buffer.byteLength;
    if (this.#freeBytes + size > this.#maxBytes) return;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [buffer]);
    else free.push(buffer);
    this.#freeBytes += size;
  }

  /** Forgets all that nobody uses. */
  clear(): void {
    this.#free.clear();
    this.#freeBytes = 0;
  }
}

/** Undefined for what is not worth keeping, or too much. */
function sizeFor(bytes: number): number | undefined {
  if (bytes <= MIN_DATA_BYTES / 2 || bytes > MAX_DATA_BYTES + HEADER_BYTES) return undefined;
  return Math.max(MIN_DATA_BYTES, 2 ** Math.ceil(Math.log2(bytes - HEADER_BYTES))) + HEADER_BYTES;
}
