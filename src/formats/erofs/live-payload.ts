import type { PayloadPlace } from "../../tree/filesystem-writer.ts";

/** Which blocks of a layer's payload are in use, a bit for each. */
export class LivePayload {
  readonly #firstBlock: number;
  readonly #blocks: number;
  readonly #bits: Uint8Array;

  /** @param firstBlock block of the device that the payload begins at */
  constructor(firstBlock: number, blocks: number) {
    this.#firstBlock = firstBlock;
    this.#blocks = blocks;
    this.#bits = new Uint8Array(Math.ceil(blocks / 8));
  }

  /** Blocks of the device; those that are not part of the payload do not count. */
  add(block: number, blocks: number): void {
    const end = Math.min(this.#blocks, block + blocks - this.#firstBlock);
    for (let at = Math.max(0, block - this.#firstBlock); at < end;) {
      if (at % 8 === 0 && at + 8 <= end) {
        this.#bits[at / 8] = 0xff;
        at += 8;
      } else {
        this.#bits[Math.floor(at / 8)] |= 1 << (at % 8);
        at++;
      }
    }
  }

  places(): PayloadPlace[] {
    const places: PayloadPlace[] = [];
    for (let at = this.#next(0, true); at < this.#blocks;) {
      const end = this.#next(at, false);
      places.push({ block: this.#firstBlock + at, payloadBlock: at, blocks: end - at });
      at = this.#next(end, true);
    }
    return places;
  }

  /** The first block from `at` on that is in use or not; the end where there is none. */
  #next(at: number, used: boolean): number {
    const skipped = used ? 0 : 0xff;
    while (at < this.#blocks) {
      const byte = this.#bits[Math.floor(at / 8)];
      const isUsed = (byte & (1 << (at % 8))) !== 0;
      if (at % 8 === 0 && byte === skipped) at += 8;
      else if (isUsed === used) return at;
      else at++;
    }
    return this.#blocks;
  }
}
