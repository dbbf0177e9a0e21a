import { checkRange, type ByteSource } from "../bytes/source.ts";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import type { LsmtLayer } from "../formats/lsmt/lsmt-reader.ts";
import { ZEROS, type SegmentTable } from "../formats/lsmt/segment-table.ts";
import { stackLayers, type StackSource } from "../formats/lsmt/stack.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { CachedReaderData } from "./cached-reader-worker.ts";
import type { FetchCounts } from "./counted-source.ts";
import type { DeviceLayer, LayerFile } from "./layer-file.ts";
import { retryingCorrupt } from "./retry-corrupt.ts";

/** The merged block device of an image's layers. */
export class Device implements ByteSource {
  readonly size: number;
  readonly name: string;
  /** What has been fetched from the layers' places so far. */
  readonly fetched: Readonly<FetchCounts>;
  /** The layer of the image that is no part of the device, but says what to fetch ahead of it. */
  readonly acceleration: Descriptor | undefined;
  readonly #layers: readonly DeviceLayer[];
  /** Of all layers, as in the stack. */
  readonly #files: readonly LayerFile[];
  readonly #stack: StackSource;

  constructor(layers: readonly DeviceLayer[], fetched: FetchCounts, acceleration?: Descriptor) {
    this.#layers = layers;
    this.#files = layers.flatMap(({ files }) => files);
    this.#stack = stackLayers(layers.map(({ lsmt }) => lsmt));
    this.size = this.#stack.size;
    this.name = this.#stack.name;
    this.fetched = fetched;
    this.acceleration = acceleration;
  }

  get layerCount(): number {
    return this.#layers.length;
  }

  /** Bytes of all blobs that layers are read from. */
  get blobBytes(): number {
    return this.#layers.reduce((sum, { blobBytes }) => sum + blobBytes, 0);
  }

  /** The layers, the lowest first. */
  get layers(): readonly LsmtLayer[] {
    return this.#stack.layers;
  }

  /** Where each part of the device is; tags count the files of all layers, the lowest layer's first. */
  get segments(): SegmentTable {
    return this.#stack.segments;
  }

  /**
   * A reader of what is on this machine, for worker threads; undefined when nothing is. It reads open files of the device, which therefore
   * is closed after the threads have ended.
   */
  get cachedReader(): { readonly url: string; readonly data: CachedReaderData } | undefined {
    const files = this.#files.map(({ cached }) => cached);
    if (files.every((file) => file === undefined)) return undefined;
    const { shared, count } = this.#stack.segments;
    return {
      url: new URL("cached-reader-worker.ts", import.meta.url).href,
      data: { size: this.size, segments: shared, segmentCount: count, files },
    };
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    return await retryingCorrupt(
      async () => await this.#stack.read(offset, length),
      () => this.#discard(offset, length),
    );
  }

  /** Reads a range of one of the layers' files into the cache, checked as for any reader; nothing happens to what is there. */
  async fetch(file: number, offset: number, length: number): Promise<void> {
    if (this.#files[file].isKept(offset, length)) return;
    await retryingCorrupt(
      async () => await this.#stack.files[file].read(offset, length),
      () => this.#files[file].discard(offset, length),
    );
  }

  /** Visits the parts of files that a range of the device is made of, sector by whole sector, in the order of the device. */
  forParts(offset: number, length: number, visit: (file: number, offset: number, length: number) => void): void {
    const endSector = Math.ceil((offset + length) / SECTOR_BYTES);
    this.#stack.segments.forRange(Math.floor(offset / SECTOR_BYTES), endSector, (_, sectors, mappedSector, tag) => {
      if (mappedSector !== ZEROS) visit(tag, mappedSector * SECTOR_BYTES, sectors * SECTOR_BYTES);
    });
  }

  async close(): Promise<void> {
    await this.#stack.close();
  }

  /** Drops what is kept of the parts of files that a range of the device is made of; false if nothing is. */
  #discard(offset: number, length: number): boolean {
    let discarded = false;
    this.forParts(offset, length, (file, partOffset, partBytes) => {
      if (this.#files[file].discard(partOffset, partBytes)) discarded = true;
    });
    return discarded;
  }
}
