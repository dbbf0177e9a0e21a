import { checkRange, type ByteSource } from "../bytes/source.ts";
import type { BlockCache } from "../cache/block-cache.ts";
import { unsupported } from "../errors.ts";
import { MAX_STACK_LAYERS, SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { ZEROS, type SegmentTable } from "../formats/lsmt/segment-table.ts";
import { stackLayers, type StackSource } from "../formats/lsmt/stack.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { isConvertedLayer } from "../oci/overlaybd-layer.ts";
import type { Manifest } from "../oci/manifest.ts";
import type { BlobPlace, LayerPlaces } from "./blob-place.ts";
import type { CachedReaderData } from "./cached-reader-worker.ts";
import { CountedSource, type FetchCounts } from "./counted-source.ts";
import type { DeviceLayer, LayerFile } from "./layer-file.ts";
import { openLayers, openNativeLayer } from "./native-layer.ts";
import { retryingCorrupt } from "./retry-corrupt.ts";
import { turboTargetOf } from "./turbo-annotations.ts";
import { openTurboLayer } from "./turbo-layer.ts";

export interface OpenDeviceOptions {
  /** Keeps what is read of the layers on disk; without it they are read from their place every time. */
  readonly cache?: BlockCache | undefined;
  /** Has the blobs that turboOCI layers were made from; by default the place of the layers themselves. */
  readonly dataPlace?: BlobPlace | undefined;
}

/**
 * Opens all layers of an overlaybd or turboOCI image, or of one that has both kinds, as one block device. Closing it closes the
 * layers, not the places. Throws `UNSUPPORTED` for images that are neither, `NOT_FOUND` when the data of a layer is not where it
 * should be.
 */
export async function openDevice(store: BlobPlace, manifest: Pick<Manifest, "layers">, options: OpenDeviceOptions = {}): Promise<Device> {
  if (manifest.layers.length === 0) throw unsupported(`${store.name}: the image has no layers`);
  if (manifest.layers.length > MAX_STACK_LAYERS) {
    throw unsupported(`${store.name}: the image has ${manifest.layers.length} layers, expected at most ${MAX_STACK_LAYERS}`);
  }
  const fetched: FetchCounts = { requests: 0, bytes: 0 };
  const places: LayerPlaces = { layers: store, data: options.dataPlace ?? store, cache: options.cache, fetched };
  const layers = await openLayers(manifest.layers, async (descriptor) => {
    const target = turboTargetOf(descriptor);
    return target === undefined ? await openBlobLayer(descriptor, places) : await openTurboLayer(descriptor, target, places);
  });
  return new Device(layers, fetched);
}

/** A layer that has all of its data in its own blob. */
async function openBlobLayer(descriptor: Descriptor, { layers, cache, fetched }: LayerPlaces): Promise<DeviceLayer> {
  const counted = new CountedSource(await layers.blobSource(descriptor), fetched);
  const source = cache === undefined ? counted : cache.source(descriptor.digest, counted);
  try {
    return await openNativeLayer(source, { declared: isConvertedLayer(descriptor), keepPinned: cache === undefined });
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The merged block device of an image's layers. */
export class Device implements ByteSource {
  readonly size: number;
  readonly name: string;
  /** What has been fetched from the layers' places so far. */
  readonly fetched: Readonly<FetchCounts>;
  readonly #layers: readonly DeviceLayer[];
  /** Of all layers, as in the stack. */
  readonly #files: readonly LayerFile[];
  readonly #stack: StackSource;

  constructor(layers: readonly DeviceLayer[], fetched: FetchCounts) {
    this.#layers = layers;
    this.#files = layers.flatMap(({ files }) => files);
    this.#stack = stackLayers(layers.map(({ lsmt }) => lsmt));
    this.size = this.#stack.size;
    this.name = this.#stack.name;
    this.fetched = fetched;
  }

  get layerCount(): number {
    return this.#layers.length;
  }

  /** Bytes of all blobs that layers are read from. */
  get blobBytes(): number {
    return this.#layers.reduce((sum, { blobBytes }) => sum + blobBytes, 0);
  }

  /** What the layers map: all else reads as zeros. */
  get segments(): SegmentTable {
    return this.#stack.segments;
  }

  /** A reader of what is cached, for worker threads; undefined when nothing is. */
  get cachedReader(): { readonly url: string; readonly data: CachedReaderData } | undefined {
    const files = this.#files.map(({ cached }) => cached);
    if (!files.every((file) => file !== undefined)) return undefined;
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

  async close(): Promise<void> {
    await this.#stack.close();
  }

  /** Drops what is kept of the parts of files that a range of the device is made of; false if nothing is. */
  #discard(offset: number, length: number): boolean {
    let discarded = false;
    const endSector = Math.ceil((offset + length) / SECTOR_BYTES);
    this.#stack.segments.forRange(Math.floor(offset / SECTOR_BYTES), endSector, (_, sectors, mappedSector, tag) => {
      if (mappedSector === ZEROS) return;
      if (this.#files[tag].discard(mappedSector * SECTOR_BYTES, sectors * SECTOR_BYTES)) discarded = true;
    });
    return discarded;
  }
}
