/** Sequential readers told apart at the same time. */
const MAX_STREAMS = 8;
const FIRST_WINDOW_BYTES = 128 * 1024;
const MAX_WINDOW_BYTES = 2 ** 20;

interface Stream {
  /** Chunk at which the reader is expected to miss next. */
  next: number;
  windowBytes: number;
}

/** Decides how far to fetch beyond a miss: nothing at first, then twice as far each time a reader goes on where it was expected. */
export class ReadAhead {
  #streams: Stream[] = [];

  /** How many chunks to fetch from `endChunk` on, when a read up to there missed `firstMissing` first. */
  after(firstMissing: number, endChunk: number, chunkBytes: number): number {
    const known = this.#streams.find((stream) => stream.next === firstMissing);
    const windowBytes = known === undefined ? 0 : Math.min(Math.max(known.windowBytes * 2, FIRST_WINDOW_BYTES), MAX_WINDOW_BYTES);
    const ahead = Math.floor(windowBytes / chunkBytes);
    const others = this.#streams.filter((stream) => stream !== known);
    this.#streams = [{ next: endChunk + ahead, windowBytes }, ...others].slice(0, MAX_STREAMS);
    return ahead;
  }
}
