import type { ByteSource } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";

const BLOCK_BYTES = 4096;
const WINDOW_BYTES = 65536;
const MAX_CACHED_BYTES = 16 * 2 ** 20;

/**
 * Reads metadata through a small cache. Where the filesystem keeps its metadata together, it is read in large windows that end
 * with it; elsewhere block by block, because file data lies between, which may be far away.
 */
export class MetadataReader {
  readonly #source: ByteSource;
  readonly #metaOffset: number;
  readonly #end: number;
  /** By their first byte, least recently used first. */
  readonly #pieces = new Map<number, Promise<Uint8Array>>();
  #cachedBytes = 0;

  /** @param metaOffset where metadata alone lies, up to `end`; 0 where it lies anywhere */
  constructor(source: ByteSource, metaOffset: number, end: number) {
    this.#source = source;
    this.#metaOffset = metaOffset;
    this.#end = end;
  }

  /** The bytes may be shared: the caller must not change them. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#check(offset, length);
    const [start, end] = this.#pieceAt(offset);
    const piece = await this.#piece(start, end);
    if (offset + length <= end) return piece.subarray(offset - start, offset - start + length);
    const bytes = new Uint8Array(length);
    bytes.set(piece.subarray(offset - start));
    for (let done = end - offset; done < length;) {
      const [from, to] = this.#pieceAt(offset + done);
      const taken = Math.min(to - from, length - done);
      bytes.set((await this.#piece(from, to)).subarray(0, taken), done);
      done += taken;
    }
    return bytes;
  }

  /** Reads what is at ascending offsets at once, neighbours together. Errors are left to the reads that follow. */
  async prefetch(ranges: Iterable<readonly [offset: number, length: number]>): Promise<void> {
    const wanted = new Map<number, number>();
    for (const [offset, length] of ranges) {
      if (!this.#isInside(offset, length)) continue;
      for (let at = offset; at < offset + length;) {
        const [start, end] = this.#pieceAt(at);
        if (!this.#pieces.has(start)) wanted.set(start, end);
        at = end;
      }
    }
    const missing = [...wanted].sort(([a], [b]) => a - b);
    const reads: Promise<unknown>[] = [];
    for (let first = 0, next = 1; first < missing.length; first = next++) {
      while (next < missing.length && missing[next][0] === missing[next - 1][1] && missing[next][1] - missing[first][0] <= WINDOW_BYTES)
        next++;
      reads.push(this.#readTogether(missing.slice(first, next)));
    }
    await Promise.allSettled(reads);
  }

  async #readTogether(pieces: readonly [start: number, end: number][]): Promise<void> {
    const first = pieces[0][0];
    const whole = this.#source.read(first, pieces[pieces.length - 1][1] - first);
    for (const [start, end] of pieces) {
      const piece = whole.then((bytes) => bytes.subarray(start - first, end - first));
      void this.#keep(start, end, piece); // who reads it sees its error
    }
    await whole;
  }

  #isInside(offset: number, length: number): boolean {
    return Number.isSafeInteger(offset) && offset >= 0 && offset + length <= this.#source.size;
  }

  #check(offset: number, length: number): void {
    if (!this.#isInside(offset, length))
      throw corrupt(
        `${this.#source.name}: metadata at [${offset}, ${offset + length}) is outside of the device's ${this.#source.size} bytes`,
      );
  }

  #pieceAt(offset: number): readonly [start: number, end: number] {
    const together = this.#metaOffset > 0 && offset >= this.#metaOffset && offset < this.#end;
    const base = together ? this.#metaOffset : 0;
    const bytes = together ? WINDOW_BYTES : BLOCK_BYTES;
    const start = base + Math.floor((offset - base) / bytes) * bytes;
    return [start, Math.min(start + bytes, together ? this.#end : this.#source.size)];
  }

  #piece(start: number, end: number): Promise<Uint8Array> {
    const known = this.#pieces.get(start);
    if (!known) return this.#keep(start, end, this.#source.read(start, end - start));
    this.#pieces.delete(start);
    this.#pieces.set(start, known);
    return known;
  }

  #keep(start: number, end: number, piece: Promise<Uint8Array>): Promise<Uint8Array> {
    this.#pieces.set(start, piece);
    this.#cachedBytes += end - start;
    piece.catch(() => this.#drop(start));
    for (const oldest of this.#pieces.keys()) {
      if (this.#cachedBytes <= MAX_CACHED_BYTES || oldest === start) break;
      this.#drop(oldest);
    }
    return piece;
  }

  #drop(start: number): void {
    const [, end] = this.#pieceAt(start);
    if (this.#pieces.delete(start)) this.#cachedBytes -= end - start;
  }
}
