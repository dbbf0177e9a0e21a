/** What is written front to back. */
export interface ByteSink {
  /** Appends the bytes. The sink is done with them when the promise resolves; the caller may then reuse them. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends the stream. Nothing may be written after it. */
  close(): Promise<void>;
}

/** Collects what is written in memory. */
export class MemorySink implements ByteSink {
  readonly #chunks: Uint8Array[] = [];

  async write(bytes: Uint8Array): Promise<void> {
    this.#chunks.push(new Uint8Array(bytes)); // Buffer.slice would share
  }

  async close(): Promise<void> {}

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}
