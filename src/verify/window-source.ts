import { checkRange, type ByteSource } from "../bytes/source.ts";

const WINDOW_BYTES = 2 << 20;
const WINDOWS = 8;

/** Reads another source in large aligned windows and keeps the last few: reads that are near each other cost one. */
export class WindowSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  /** By number, least recently used first. */
  readonly #windows = new Map<number, Promise<Uint8Array>>();

  constructor(source: ByteSource) {
    this.#source = source;
    this.name = source.name;
    this.size = source.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const number = Math.floor((offset + done) / WINDOW_BYTES);
      const within = offset + done - number * WINDOW_BYTES;
      const taken = Math.min(WINDOW_BYTES - within, length - done);
      bytes.set((await this.#window(number)).subarray(within, within + taken), done);
      done += taken;
    }
    return bytes;
  }

  /** The source stays open. */
  async close(): Promise<void> {
    this.#windows.clear();
  }

  #window(number: number): Promise<Uint8Array> {
    const known = this.#windows.get(number);
    const window = known ?? this.#source.read(number * WINDOW_BYTES, Math.min(WINDOW_BYTES, this.size - number * WINDOW_BYTES));
    this.#windows.delete(number);
    this.#windows.set(number, window);
    if (!known) window.catch(() => this.#windows.delete(number));
    if (this.#windows.size > WINDOWS) this.#windows.delete(this.#windows.keys().next().value ?? number);
    return window;
  }
}
