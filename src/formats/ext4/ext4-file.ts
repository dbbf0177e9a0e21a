import { checkRange, type ByteSource } from "../../bytes/source.ts";
import type { Extent } from "./extent-tree.ts";

/** A file's bytes, holes and unwritten extents as zeros. */
export class Ext4File implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  readonly #extents: readonly Extent[];
  readonly #blockBytes: number;

  constructor(source: ByteSource, size: number, extents: readonly Extent[], blockBytes: number, name: string) {
    this.#source = source;
    this.size = size;
    this.#extents = extents;
    this.#blockBytes = blockBytes;
    this.name = name;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = new Uint8Array(length);
    for (let index = this.#firstExtent(Math.floor(offset / this.#blockBytes)); index < this.#extents.length; index++) {
      const extent = this.#extents[index];
      if (extent.fileBlock * this.#blockBytes >= offset + length) break;
      const from = Math.max(offset, extent.fileBlock * this.#blockBytes);
      const to = Math.min(offset + length, (extent.fileBlock + extent.blocks) * this.#blockBytes);
      if (from >= to || extent.unwritten) continue;
      const at = extent.block * this.#blockBytes + (from - extent.fileBlock * this.#blockBytes);
      bytes.set(await this.#source.read(at, to - from), from - offset);
    }
    return bytes;
  }

  /** The first extent that ends behind a block of the file. */
  #firstExtent(fileBlock: number): number {
    let low = 0;
    let high = this.#extents.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { fileBlock: first, blocks } = this.#extents[middle];
      if (first + blocks <= fileBlock) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The filesystem stays open. */
  async close(): Promise<void> {}
}
