import type { ByteSource } from "../bytes/source.ts";

/** What has been asked of the places where layers live. */
export interface FetchCounts {
  requests: number;
  bytes: number;
}

/** A source that counts its reads. */
export class CountedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  readonly #counts: FetchCounts;

  constructor(source: ByteSource, counts: FetchCounts) {
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
    this.#counts = counts;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#counts.requests++;
    const bytes = await this.#source.read(offset, length);
    this.#counts.bytes += bytes.length;
    return bytes;
  }

  distrust(): void {
    this.#source.distrust?.();
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}
