import { checkRange, type ByteSource } from "../../bytes/source.ts";
import type { DeviceExtent } from "../../tree/filesystem-reader.ts";

/** A file's bytes, holes as zeros. */
export class ErofsFile implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  readonly #extents: readonly DeviceExtent[];

  constructor(source: ByteSource, size: number, extents: readonly DeviceExtent[], name: string) {
    this.#source = source;
    this.size = size;
    this.#extents = extents;
    this.name = name;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = new Uint8Array(length);
    for (let index = this.#firstBehind(offset); index < this.#extents.length; index++) {
      const extent = this.#extents[index];
      if (extent.offset >= offset + length) break;
      const from = Math.max(offset, extent.offset);
      const to = Math.min(offset + length, extent.offset + extent.length);
      bytes.set(await this.#source.read(extent.deviceOffset + from - extent.offset, to - from), from - offset);
    }
    return bytes;
  }

  /** The first extent that ends behind an offset. */
  #firstBehind(offset: number): number {
    let low = 0;
    let high = this.#extents.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const extent = this.#extents[middle];
      if (extent.offset + extent.length <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The filesystem stays open. */
  async close(): Promise<void> {}
}
