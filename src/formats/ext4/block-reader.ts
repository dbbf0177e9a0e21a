import type { ByteSource } from "../../bytes/source.ts";

const WINDOW_BYTES = 65536;
const WINDOWS = 256; // 16 MiB

/** Reads single blocks through a small cache of larger windows, because metadata lies together. */
export class BlockReader {
  readonly #source: ByteSource;
  readonly #blockBytes: number;
  /** By window number, least recently used first. */
  readonly #windows = new Map<number, Promise<Uint8Array>>();

  constructor(source: ByteSource, blockBytes: number) {
    this.#source = source;
    this.#blockBytes = blockBytes;
  }

  /** One block. The bytes are shared: the caller must not change them. */
  async read(block: number): Promise<Uint8Array> {
    const offset = block * this.#blockBytes;
    const number = Math.floor(offset / WINDOW_BYTES);
    const window = await this.#window(number);
    return window.subarray(offset - number * WINDOW_BYTES, offset - number * WINDOW_BYTES + this.#blockBytes);
  }

  #window(number: number): Promise<Uint8Array> {
    const known = this.#windows.get(number);
    if (known) {
      this.#windows.delete(number);
      this.#windows.set(number, known);
      return known;
    }
    const offset = number * WINDOW_BYTES;
    const window = this.#source.read(offset, Math.min(WINDOW_BYTES, this.#source.size - offset));
    window.catch(() => this.#windows.delete(number));
    this.#windows.set(number, window);
    if (this.#windows.size > WINDOWS) this.#windows.delete(this.#windows.keys().next().value ?? number);
    return window;
  }
}
