/** Where a part of the payload belongs on the device. */
export interface PayloadPlace {
  readonly block: number;
  readonly payloadBlock: number;
  readonly blocks: number;
}

/** Numbers for each place: inode, block, payload block, blocks; an ext4 of 4 KiB blocks has fewer than 2^32 of each. */
const COLUMNS = 4;

/** The places of a layer's files, packed, because a layer can have millions of them. */
export class PayloadPlaces {
  #numbers = new Uint32Array(1024 * COLUMNS);
  #count = 0;
  /** Inodes that were freed: what was added for them before that count is void. */
  readonly #dropped = new Map<number, number>();

  add(inode: number, place: PayloadPlace): void {
    const at = this.#count * COLUMNS;
    if (at === this.#numbers.length) {
      const grown = new Uint32Array(this.#numbers.length * 2);
      grown.set(this.#numbers);
      this.#numbers = grown;
    }
    this.#numbers[at] = inode;
    this.#numbers[at + 1] = place.block;
    this.#numbers[at + 2] = place.payloadBlock;
    this.#numbers[at + 3] = place.blocks;
    this.#count++;
  }

  /** Forgets an inode's places. The number may be used again. */
  drop(inode: number): void {
    this.#dropped.set(inode, this.#count);
  }

  /** All places, neighbours joined, ascending by payload block; none are left. */
  take(): PayloadPlace[] {
    const places: { block: number; payloadBlock: number; blocks: number }[] = [];
    for (let index = 0; index < this.#count; index++) {
      const at = index * COLUMNS;
      if (index < (this.#dropped.get(this.#numbers[at]) ?? 0)) continue;
      const [block, payloadBlock, blocks] = [this.#numbers[at + 1], this.#numbers[at + 2], this.#numbers[at + 3]];
      const last = places.at(-1);
      if (last && last.block + last.blocks === block && last.payloadBlock + last.blocks === payloadBlock) last.blocks += blocks;
      else places.push({ block, payloadBlock, blocks });
    }
    this.#count = 0;
    this.#dropped.clear();
    return places.sort((a, b) => a.payloadBlock - b.payloadBlock);
  }
}
