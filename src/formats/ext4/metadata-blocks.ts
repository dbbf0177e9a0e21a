/** The filesystem's metadata in memory, block by block; what was changed since it was last taken is dirty. */
export class MetadataBlocks {
  readonly #blockBytes: number;
  readonly #blocks = new Map<number, Buffer>();
  readonly #dirty = new Set<number>();

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
  }

  /** A block to read. Blocks that were never seen are zeros, as on a fresh device. */
  get(block: number): Buffer {
    const known = this.#blocks.get(block);
    if (known) return known;
    const fresh = Buffer.alloc(this.#blockBytes);
    this.#blocks.set(block, fresh);
    return fresh;
  }

  /** A block to change in place. */
  change(block: number): Buffer {
    this.#dirty.add(block);
    return this.get(block);
  }

  /** Takes over a block's present content from the device. */
  load(block: number, bytes: Uint8Array): void {
    this.#blocks.set(block, Buffer.from(bytes));
  }

  /** Writes a part of a block; it becomes dirty only where bytes differ. */
  write(block: number, bytes: Uint8Array, offset = 0): void {
    if (Buffer.compare(this.get(block).subarray(offset, offset + bytes.length), bytes) !== 0) this.change(block).set(bytes, offset);
  }

  /** Writes a whole block that has no earlier content worth comparing. */
  create(block: number, bytes: Uint8Array): void {
    this.#blocks.set(block, Buffer.from(bytes));
    this.#dirty.add(block);
  }

  /** Forgets a block that was freed. */
  drop(block: number): void {
    this.#blocks.delete(block);
    this.#dirty.delete(block);
  }


  /** The numbers of all dirty blocks, ascending; they are clean afterwards. */
  takeDirty(): number[] {
    const blocks = [...this.#dirty].toSorted((a, b) => a - b);
    this.#dirty.clear();
    return blocks;
  }
}
