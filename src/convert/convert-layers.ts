import { createHash } from "node:crypto";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { BlockCache } from "../cache/block-cache.ts";
import type { ByteSource } from "../bytes/source.ts";
import { openDevice } from "../device/device.ts";
import { corrupt, LazyError, unsupported } from "../errors.ts";
import { Ext4Writer } from "../formats/ext4/ext4-writer.ts";
import type { LayerBlocks } from "../tree/filesystem-writer.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { isTarLayer, type MediaTypeFamily } from "../oci/media-types.ts";
import { layerChanges } from "../tree/layer-changes.ts";
import type { BaseLayer } from "./base-layer.ts";
import { BlobSpool, type SpoolOptions } from "./blob-spool.ts";
import type { ImageNode } from "./image-graph.ts";
import { identityOf } from "./layer-identity.ts";
import type { LayerScan } from "./layer-scan.ts";
import { isConvertedLayer, layerDescriptor } from "./output-image.ts";
import { OverlaybdLayerWriter } from "./overlaybd-layer.ts";
import type { ScanThreads } from "./scan-threads.ts";
import type { Semaphore } from "./semaphore.ts";

/** A layer of the result. */
export interface ConvertedLayer {
  readonly descriptor: Descriptor;
  /** Undefined for what is in the destination already. */
  readonly content: ByteSource | undefined;
}

export interface LayersOptions {
  readonly source: ImageStore;
  /** Where known layers are. */
  readonly destination: ImageStore;
  /** Chain IDs of the image's layers. */
  readonly chain: readonly Digest[];
  /** Layers that need not be converted, by their place. */
  readonly known: readonly (Descriptor | undefined)[];
  /** Keeps what is read of known layers. */
  readonly openCache: () => Promise<BlockCache>;
  /** Size of the device in bytes. */
  readonly virtualSize: number;
  readonly family: MediaTypeFamily;
  /** Continue the filesystem of this layer instead of making one. */
  readonly base: BaseLayer | undefined;
  readonly threads: ScanThreads;
  /** Layers that are scanned at the same time. */
  readonly scans: Semaphore;
  readonly layerRead: (index: number, bytes: number) => void;
  /** The layer is complete, and so are all below it. What it throws ends the conversion. */
  readonly layerConverted: (index: number, layer: ConvertedLayer) => void;
  readonly signal: AbortSignal;
}

/** Longest chain that block devices are stacked from. */
const MAX_LAYERS = 255;
/** Changes to the filesystem that are made before anything else gets its turn: a millisecond or so. */
const CHANGES_AT_A_TIME = 256;

/** Where the blobs of an image's layers are made. Whoever has them closes them. */
export function openSpools({ manifest }: ImageNode, directory: string, options: Omit<SpoolOptions, "path">): BlobSpool[] {
  return manifest.layers.map((layer, index) => {
    const name = `${String(index).padStart(4, "0")}_${layer.digest}`;
    return new BlobSpool({ ...options, path: join(directory, name, "overlaybd.commit") });
  });
}

/**
 * Converts the layers of one image into the spools: a data pass over each layer, several at a time, and a metadata pass in the order
 * of the chain. Returns when every layer has proven to be what the manifest and the config say; nothing is stored anywhere yet.
 */
export async function convertLayers(image: ImageNode, spools: readonly BlobSpool[], options: LayersOptions): Promise<ConvertedLayer[]> {
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  const scans = image.manifest.layers.map(async (layer, index): Promise<ScannedLayer | undefined> => {
    if (options.known[index]) return undefined;
    const release = await options.scans.acquire();
    try {
      signal.throwIfAborted();
      const { virtualSize, threads } = options;
      const writer = new OverlaybdLayerWriter(spools[index], {
        compress: threads.compress,
        ...identityOf(options.chain, index, virtualSize),
      });
      const scan = await scanOne(image, layer, index, writer, { ...options, signal });
      return { scan, writer, release };
    } catch (error) {
      release();
      failure.abort(error);
      throw error;
    }
  });
  try {
    return await new LayerBuilder(image, options).build(scans);
  } catch (error) {
    failure.abort(error);
    // Whoever still holds a slot gives it back; the first error is the one to report.
    for (const scan of await Promise.allSettled(scans)) if (scan.status === "fulfilled") scan.value?.release();
    throw failure.signal.reason;
  }
}

/** Throws for images that cannot be converted, before anything of their layers is read. */
export function checkLayers({ manifest, config, name }: ImageNode): void {
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== manifest.layers.length) {
    throw corrupt(`${name}: the manifest has ${manifest.layers.length} layers, the config ${diffIds.length} diff IDs`);
  }
  if (manifest.layers.length > MAX_LAYERS)
    throw unsupported(`${name}: ${manifest.layers.length} layers; at most ${MAX_LAYERS} can be stacked`);
  for (const [index, layer] of manifest.layers.entries()) {
    if (isConvertedLayer(layer))
      throw unsupported(`${name}: layer ${index} is an overlaybd layer, but not all layers are; convert the image it was made from`);
    if (!isTarLayer(layer.mediaType)) throw unsupported(`${name}: layer ${index} has media type ${layer.mediaType}, expected a tar layer`);
  }
}

/** A layer after its data pass, waiting for its turn in the chain. */
interface ScannedLayer {
  readonly scan: LayerScan;
  readonly writer: OverlaybdLayerWriter;
  readonly release: () => void;
}

async function scanOne(
  { config, name: image }: ImageNode,
  layer: Descriptor,
  index: number,
  writer: OverlaybdLayerWriter,
  { source, threads, signal, layerRead }: Pick<LayersOptions, "source" | "threads" | "signal" | "layerRead">,
): Promise<LayerScan> {
  const name = `${image}: layer ${index} (${layer.digest})`;
  const stored = observed(source.blobStream(layer, { signal }), (bytes) => layerRead(index, bytes));
  const scan = await threads.scan(stored, name, async (batch, payloadBytes) => await writer.appendPayload(batch, payloadBytes));
  const diffId = config.rootfs.diff_ids[index];
  if (scan.diffId !== diffId) throw corrupt(`${name}: its content has diff ID ${scan.diffId}, the config says ${diffId}`);
  return scan;
}

async function* observed(chunks: AsyncIterable<Uint8Array>, observe: (bytes: number) => void): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    yield chunk;
    observe(chunk.length);
  }
}

/** The metadata pass: applies each layer to the filesystem that the layers below have made. */
class LayerBuilder {
  readonly #image: ImageNode;
  readonly #options: LayersOptions;
  readonly #layers: ConvertedLayer[] = [];
  /** As all layers so far have made it; undefined while the topmost of them was not converted here. */
  #filesystem: Ext4Writer | undefined;

  constructor(image: ImageNode, options: LayersOptions) {
    this.#image = image;
    this.#options = options;
  }

  async build(scans: readonly Promise<ScannedLayer | undefined>[]): Promise<ConvertedLayer[]> {
    for (const scan of scans) scan.catch(() => {}); // each is awaited below, perhaps after it failed
    for (const [index, pending] of scans.entries()) {
      const scanned = await pending;
      const known = this.#options.known[index];
      if (scanned === undefined && known) this.#layers.push({ descriptor: known, content: undefined });
      else if (scanned) this.#layers.push(await this.#build(index, scanned));
      // What a known layer changes is not in memory.
      if (scanned === undefined) this.#filesystem = undefined;
    }
    return this.#layers;
  }

  async #build(index: number, { scan, writer, release }: ScannedLayer): Promise<ConvertedLayer> {
    const filesystem = (this.#filesystem ??= await this.#openFilesystem());
    const blocks = await applyLayer(filesystem, scan, `${this.#image.name}: layer ${index}`);
    const { digest, content } = await writer.finish(blocks, (block) => filesystem.metadataBlock(block));
    release();
    const layer = { descriptor: layerDescriptor(digest, content.size, this.#options.family), content };
    this.#options.layerConverted(index, layer);
    return layer;
  }

  async #openFilesystem(): Promise<Ext4Writer> {
    const { base, virtualSize, chain } = this.#options;
    if (this.#layers.length > 0) return await this.#loadFilesystem();
    if (base) return await Ext4Writer.open(base.device);
    // Derived from the bottom layer, so that the same layers always give the same bytes.
    const identity = createHash("sha256").update(`lazylayer ext4 ${chain[0]}`).digest();
    return Ext4Writer.format({
      bytes: virtualSize,
      uuid: asUuid(identity.subarray(0, 16)),
      hashSeed: asUuid(identity.subarray(16, 32)),
    });
  }

  /** Reads the filesystem from the layers that are there: range reads of its metadata, no layer as a whole. */
  async #loadFilesystem(): Promise<Ext4Writer> {
    const { base, family, destination, openCache } = this.#options;
    const below = base
      ? [{ descriptor: layerDescriptor(base.blob.digest, base.blob.content.size, family), content: base.blob.content }]
      : [];
    const layers = [...below, ...this.#layers];
    const blobSource = async (descriptor: Descriptor): Promise<ByteSource> => {
      const content = layers.find((layer) => layer.descriptor.digest === descriptor.digest)?.content;
      return content ? lent(content) : await destination.blobSource(descriptor);
    };
    const image = { layers: layers.map((layer) => layer.descriptor) };
    const device = await openDevice({ name: destination.name, blobSource }, image, { cache: await openCache() });
    try {
      return await Ext4Writer.open(device);
    } finally {
      await device.close();
    }
  }
}

/** The same source for somebody who closes it while it is still needed. */
function lent(source: ByteSource): ByteSource {
  const { name, size } = source;
  return { name, size, read: async (offset, length) => await source.read(offset, length), close: async () => {} };
}

async function applyLayer(filesystem: Ext4Writer, scan: LayerScan, name: string): Promise<LayerBlocks> {
  try {
    filesystem.beginLayer(scan.payloadBlocks);
    let applied = 0;
    for (const change of layerChanges(scan.entries)) {
      filesystem.apply(change);
      // The layers above are being read meanwhile, and their threads wait for this one to hand them their bytes.
      if (++applied % CHANGES_AT_A_TIME === 0) await setImmediate();
    }
    return filesystem.finishLayer();
  } catch (error) {
    if (error instanceof LazyError) throw new LazyError(error.code, `${name}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Marks 16 bytes as a UUID of version 8, whose other bits are free (RFC 9562). */
function asUuid(bytes: Uint8Array): Uint8Array {
  const uuid = new Uint8Array(bytes);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}
