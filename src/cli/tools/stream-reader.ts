import { corrupt } from "../../errors.ts";

/** Takes stretches of a stream in their order. */
export class StreamReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #name: string;
  #chunk: Uint8Array = new Uint8Array(0);
  #position = 0;

  constructor(chunks: AsyncIterable<Uint8Array>, name: string) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#name = name;
  }

  /** Bytes taken so far. */
  get position(): number {
    return this.#position;
  }

  /** The next `length` bytes; undefined where the stream has ended. */
  async read(length: number): Promise<Buffer | undefined> {
    const bytes = Buffer.alloc(length);
    let filled = 0;
    while (filled < length && (await this.#fill())) {
      const taken = this.#chunk.subarray(0, length - filled);
      bytes.set(taken, filled);
      filled += taken.length;
      this.#pass(taken.length);
    }
    if (filled === length) return bytes;
    if (filled === 0) return undefined;
    throw this.#cut(length - filled);
  }

  async skip(length: number): Promise<void> {
    for (let left = length; left > 0;) {
      if (!(await this.#fill())) throw this.#cut(left);
      const taken = Math.min(left, this.#chunk.length);
      this.#pass(taken);
      left -= taken;
    }
  }

  /** Passes over the rest. */
  async end(): Promise<void> {
    while (await this.#fill()) this.#pass(this.#chunk.length);
  }

  async #fill(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      this.#chunk = next.value;
    }
    return true;
  }

  #pass(length: number): void {
    this.#chunk = this.#chunk.subarray(length);
    this.#position += length;
  }

  #cut(missing: number): Error {
    return corrupt(`${this.#name}: ends after ${this.#position} bytes, ${missing} more are expected`);
  }
}
