import { checkRange, type ByteSource } from "../bytes/source.ts";
import type { BlockCache } from "../cache/block-cache.ts";
import { CachedSource } from "../cache/cached-source.ts";
import { LazyError, unsupported } from "../errors.ts";
import { MAX_STACK_LAYERS, SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { ZEROS } from "../formats/lsmt/segment-table.ts";
import { stackLayers, type StackSource } from "../formats/lsmt/stack.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { Manifest } from "../oci/manifest.ts";
import type { CachedReaderData } from "./cached-reader-worker.ts";
import { CountedSource, type FetchCounts } from "./counted-source.ts";
import { openOverlaybdLayer, type OverlaybdLayer } from "./layer.ts";

/** Layers that are opened at the same time. */
const MAX_OPENING = 8;
/** Every layer of an overlaybd image carries it (see docs/formats/convertor.md). */
const VERSION_ANNOTATION = "containerd.io/snapshot/overlaybd/version";

export interface OpenDeviceOptions {
  /** Keeps what is read of the layers on disk; without it they are read from their place every time. */
  readonly cache?: BlockCache | undefined;
}

/** Where the blobs of an image are. */
export type BlobPlace = Pick<ImageStore, "name" | "blobSource">;

/** A layer of the device, and the source its blob is read through. */
interface DeviceLayer extends OverlaybdLayer {
  readonly source: ByteSource;
}

/**
 * Opens all layers of an overlaybd image as one block device. Closing it closes the layers, not the store.
 * Throws `UNSUPPORTED` for images that are not overlaybd.
 */
export async function openDevice(store: BlobPlace, manifest: Pick<Manifest, "layers">, options: OpenDeviceOptions = {}): Promise<Device> {
  if (manifest.layers.length === 0) throw unsupported(`${store.name}: the image has no layers`);
  if (manifest.layers.length > MAX_STACK_LAYERS) {
    throw unsupported(`${store.name}: the image has ${manifest.layers.length} layers, expected at most ${MAX_STACK_LAYERS}`);
  }
  const fetched: FetchCounts = { requests: 0, bytes: 0 };
  const layers = await openAll(manifest.layers, async (descriptor) => await openBlob(store, descriptor, fetched, options.cache));
  return new Device(layers, fetched);
}

async function openBlob(
  store: BlobPlace,
  descriptor: Descriptor,
  fetched: FetchCounts,
  cache: BlockCache | undefined,
): Promise<DeviceLayer> {
  const counted = new CountedSource(await store.blobSource(descriptor), fetched);
  const source = cache === undefined ? counted : cache.source(descriptor.digest, counted);
  const options = { declared: descriptor.annotations?.[VERSION_ANNOTATION] !== undefined, keepPinned: cache === undefined };
  try {
    return {
      ...(await retryingCorrupt(
        async () => await openOverlaybdLayer(source, options),
        () => discardAll(source),
      )),
      source,
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}

function discardAll(source: ByteSource): boolean {
  if (!(source instanceof CachedSource)) return false;
  source.discard(0, source.size);
  return true;
}

/** What was cached may be wrong although its place has it right: once, `discard` drops it and `attempt` starts over. */
async function retryingCorrupt<T>(attempt: () => Promise<T>, discard: () => boolean): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof LazyError && error.code === "CORRUPT") || !discard()) throw error;
    return await attempt();
  }
}

/** Opens the layers in their order, some at a time; when one fails, closes those that were opened. */
async function openAll(descriptors: readonly Descriptor[], open: (descriptor: Descriptor) => Promise<DeviceLayer>): Promise<DeviceLayer[]> {
  const layers: DeviceLayer[] = [];
  for (let first = 0; first < descriptors.length; first += MAX_OPENING) {
    const results = await Promise.allSettled(descriptors.slice(first, first + MAX_OPENING).map(open));
    for (const result of results) if (result.status === "fulfilled") layers.push(result.value);
    const failure = results.find((result) => result.status === "rejected");
    if (failure === undefined) continue;
    await Promise.all(layers.map(async ({ lsmt }) => await lsmt.close()));
    throw failure.reason;
  }
  return layers;
}

/** The merged block device of an image's layers. */
export class Device implements ByteSource {
  readonly size: number;
  readonly name: string;
  /** What has been fetched from the layers' place so far. */
  readonly fetched: Readonly<FetchCounts>;
  readonly #layers: readonly DeviceLayer[];
  readonly #stack: StackSource;

  constructor(layers: readonly DeviceLayer[], fetched: FetchCounts) {
    this.#layers = layers;
    this.#stack = stackLayers(layers.map(({ lsmt }) => lsmt));
    this.size = this.#stack.size;
    this.name = this.#stack.name;
    this.fetched = fetched;
  }

  get layerCount(): number {
    return this.#layers.length;
  }

  /** Bytes of all layer blobs. */
  get blobBytes(): number {
    return this.#layers.reduce((sum, { source }) => sum + source.size, 0);
  }

  /** A reader of what is cached, for worker threads; undefined when nothing is. */
  get cachedReader(): { readonly url: string; readonly data: CachedReaderData } | undefined {
    const layers = this.#layers.map(({ source, payloadOffset, blocks }) =>
      source instanceof CachedSource ? { chunks: source.shared.data, payloadOffset, blocks } : undefined,
    );
    if (!layers.every((layer) => layer !== undefined)) return undefined;
    const { shared, count } = this.#stack.segments;
    return {
      url: new URL("cached-reader-worker.ts", import.meta.url).href,
      data: { size: this.size, segments: shared, segmentCount: count, layers },
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

  /** Drops what the cache has of the blobs' parts that a range of the device is made of; false if nothing is cached. */
  #discard(offset: number, length: number): boolean {
    let discarded = false;
    const endSector = Math.ceil((offset + length) / SECTOR_BYTES);
    this.#stack.segments.forRange(Math.floor(offset / SECTOR_BYTES), endSector, (_, sectors, mappedSector, tag) => {
      const layer = this.#layers[tag];
      if (mappedSector === ZEROS || layer === undefined || !(layer.source instanceof CachedSource)) return;
      const [start, end] = blobRange(layer, mappedSector * SECTOR_BYTES, sectors * SECTOR_BYTES);
      layer.source.discard(start, end - start);
      discarded = true;
    });
    return discarded;
  }
}

/** Where the blob holds a range of a layer's data. */
function blobRange({ payloadOffset, blocks }: OverlaybdLayer, offset: number, length: number): [start: number, end: number] {
  if (blocks === undefined) return [payloadOffset + offset, payloadOffset + offset + length];
  const firstBlock = Math.floor(offset / blocks.blockSize);
  const endBlock = Math.min(Math.ceil((offset + length) / blocks.blockSize), blocks.offsets.length - 1);
  return [payloadOffset + blocks.offsets[firstBlock], payloadOffset + blocks.offsets[endBlock]];
}
