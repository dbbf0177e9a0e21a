import { corrupt } from "../errors.ts";

/** What can be read at an offset. */
export interface ByteSource {
  /** Size in bytes; fixed for the life of the source. */
  readonly size: number;
  /** A name for messages: a path, a digest, `layer 3`. */
  readonly name: string;
  /**
   * Reads exactly `length` bytes at `offset`. The result belongs to the caller.
   * Throws `CORRUPT` when the range is outside of the source; places throw `UNAVAILABLE`, `DENIED` or `NOT_FOUND`.
   * Reads may run concurrently.
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Like `read`, and fills memory that the caller has; where large sources are gone through, garbage would cost more than the reading. */
  readInto?(offset: number, target: Uint8Array): Promise<void>;
  /** Says that bytes which were read are wrong: where there is another way to get them, reads go that way from now on. */
  distrust?(): void;
  /** Frees what the source holds. Idempotent; a source made from another closes it. */
  close(): Promise<void>;
}

/** Throws `CORRUPT` unless `[offset, offset + length)` lies inside of the source. */
export function checkRange(source: { readonly name: string; readonly size: number }, offset: number, length: number): void {
  const inside = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!inside || offset + length > source.size) {
    throw corrupt(`${source.name}: read of [${offset}, ${offset + length}) is outside of [0, ${source.size})`);
  }
}

/** The bytes at `offset` that `buffer` has room for: in the buffer, if the source can read into it. */
export async function readThrough(source: ByteSource, offset: number, buffer: Uint8Array): Promise<Uint8Array> {
  if (!source.readInto) return await source.read(offset, buffer.length);
  await source.readInto(offset, buffer);
  return buffer;
}

/** A source over bytes in memory. */
export class MemorySource implements ByteSource {
  readonly name: string;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, name = "memory") {
    this.#bytes = bytes;
    this.name = name;
  }

  get size(): number {
    return this.#bytes.byteLength;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    return new Uint8Array(this.#bytes.subarray(offset, offset + length)); // Buffer.slice would share
  }

  async close(): Promise<void> {}
}

/** A window of another source. Closing it closes the other. */
export class SubSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly offset: number;
  readonly #source: ByteSource;

  constructor(source: ByteSource, offset: number, size: number, name = source.name) {
    checkRange(source, offset, size);
    this.#source = source;
    this.offset = offset;
    this.size = size;
    this.name = name;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    return await this.#source.read(this.offset + offset, length);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}
