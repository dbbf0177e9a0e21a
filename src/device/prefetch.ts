import type { PrefetchFile } from "../formats/trace/prefetch-file.ts";
import type { Device } from "./device.ts";
import { prefetchPieces, type PrefetchPiece } from "./prefetch-pieces.ts";

/** Pieces that are fetched at a time. */
export const DEFAULT_READERS = 16;
/** Of the readers, one in so many goes on while somebody waits for a read of the device. */
const STANDING_BACK = 4;
/** So many failures without a success between them: the place is gone, and asking it more would only be in the way. */
const MAX_FAILURES_IN_A_ROW = 32;

export interface PrefetchOptions {
  readonly readers?: number;
  /** Nothing is begun beyond so much: the cache would drop the first things for the last. */
  readonly maxBytes?: number;
  /** Resolves when nobody waits for a read of the device. */
  readonly idle: () => Promise<void>;
  readonly onFailure: (error: unknown) => void;
}

export interface PrefetchCounts {
  /** Pieces and bytes of the layers' files that are now at hand. */
  pieces: number;
  bytes: number;
  failed: number;
  ended: boolean;
}

/**
 * Fetches what a trace or a list names into the cache that a device reads through, the first things first, until all is there or
 * it is stopped. Nothing that goes wrong with it is wrong with the device.
 */
export class Prefetch {
  readonly counts: PrefetchCounts = { pieces: 0, bytes: 0, failed: 0, ended: false };
  /** Resolves when nothing more is fetched; never rejects. */
  readonly ended: Promise<void>;
  readonly #device: Device;
  readonly #options: PrefetchOptions;
  readonly #pieces: AsyncGenerator<PrefetchPiece>;
  #failuresInRow = 0;
  #begunBytes = 0;
  #stopped = false;
  #isAborted = false;

  constructor(device: Device, wanted: PrefetchFile, options: PrefetchOptions) {
    this.#device = device;
    this.#options = options;
    this.#pieces = prefetchPieces(device, wanted, (error) => this.#note(error));
    this.ended = this.#run(options.readers ?? DEFAULT_READERS);
  }

  /** No piece is begun any more. */
  stop(): void {
    this.#stopped = true;
    this.#isAborted = true;
  }

  async #run(readers: number): Promise<void> {
    const steadfast = Math.ceil(readers / STANDING_BACK);
    await Promise.all(Array.from({ length: readers }, async (_, reader) => await this.#read(reader < steadfast)));
    this.counts.ended = true;
  }

  async #read(steadfast: boolean): Promise<void> {
    while (!this.#stopped) {
      if (!steadfast) await this.#options.idle();
      const piece = await this.#next();
      if (piece === undefined || this.#stopped) return;
      this.#begunBytes += piece.length;
      if (this.#begunBytes > (this.#options.maxBytes ?? Infinity)) return;
      try {
        await this.#device.fetch(piece.file, piece.offset, piece.length);
        this.counts.pieces++;
        this.counts.bytes += piece.length;
        this.#failuresInRow = 0;
      } catch (error) {
        if (++this.#failuresInRow >= MAX_FAILURES_IN_A_ROW) this.#stopped = true;
        this.#note(error);
      }
    }
  }

  /** Undefined at the end, and when the file system that a list is looked up in cannot be read. */
  async #next(): Promise<PrefetchPiece | undefined> {
    try {
      const next = await this.#pieces.next();
      return next.done === true ? undefined : next.value;
    } catch (error) {
      this.#note(error);
      return undefined;
    }
  }

  /** What fails because it was told to end is nobody's concern. */
  #note(error: unknown): void {
    if (this.#isAborted) return;
    this.counts.failed++;
    this.#options.onFailure(error);
  }
}
