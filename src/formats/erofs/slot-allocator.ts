import { BLOCK_BYTES, SLOT_BYTES } from "./layout.ts";

/** Gives out room for inodes, front to back. Where one has to begin a new block, smaller ones fill the rest of the old. */
export class SlotAllocator {
  /** The first slot is left out: zero is no inode number in Linux. */
  #end = SLOT_BYTES;
  #gapStart = 0;
  #gapEnd = 0;

  /** Bytes given out, gaps included. */
  get end(): number {
    return this.#end;
  }

  /** The offset of `bytes`, of which the first `together` lie in one block. */
  take(bytes: number, together: number): number {
    const taken = Math.ceil(bytes / SLOT_BYTES) * SLOT_BYTES;
    if (taken <= this.#gapEnd - this.#gapStart) {
      this.#gapStart += taken;
      return this.#gapStart - taken;
    }
    const room = BLOCK_BYTES - (this.#end % BLOCK_BYTES);
    if (together > room) {
      if (room > this.#gapEnd - this.#gapStart) [this.#gapStart, this.#gapEnd] = [this.#end, this.#end + room];
      this.#end += room;
    }
    this.#end += taken;
    return this.#end - taken;
  }
}
