import { createHash } from "node:crypto";
import { join } from "node:path";
import type { ByteSource } from "../bytes/source.ts";
import type { CompressBlocks } from "../compression/block-codec.ts";
import { corrupt, LazyError, unsupported } from "../errors.ts";
import { Ext4Writer, type LayerBlocks } from "../formats/ext4/ext4-writer.ts";
import { chainIds } from "../oci/chain-id.ts";
import { parseConfig, type ImageConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, hexOf, type Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { Manifest } from "../oci/manifest.ts";
import { isTarLayer, type MediaTypeFamily } from "../oci/media-types.ts";
import { layerChanges } from "../tree/layer-changes.ts";
import type { BaseLayer } from "./base-layer.ts";
import { BlobSpool, SpoolMemory } from "./blob-spool.ts";
import type { ConvertObserver } from "./convert-observer.ts";
import { scanLayer, type LayerScan } from "./layer-scan.ts";
import { isConvertedLayer, layerDescriptor, outputConfig, outputManifest, OUTPUT_TYPES } from "./output-image.ts";
import { OverlaybdLayerWriter, type LayerBlob } from "./overlaybd-layer.ts";
import type { Semaphore } from "./semaphore.ts";

export interface ManifestOptions {
  readonly source: ImageStore;
  /** Size of the device in bytes. */
  readonly virtualSize: number;
  readonly family: MediaTypeFamily;
  /** Continue the filesystem of this layer instead of making one. */
  readonly base: BaseLayer | undefined;
  /** Where blobs that outgrow memory are spooled; each layer in a directory of its own. */
  readonly directory: string;
  readonly keepSpools: boolean;
  readonly compress: CompressBlocks;
  /** Layers that are scanned at the same time. */
  readonly scans: Semaphore;
  readonly observer: ConvertObserver;
  readonly signal: AbortSignal;
}

/** A converted image, complete but not stored anywhere. Close it to free its blobs. */
export interface ConvertedManifest {
  readonly manifest: Uint8Array;
  readonly mediaType: string;
  readonly config: Uint8Array;
  readonly configDescriptor: Descriptor;
  readonly layers: readonly { readonly descriptor: Descriptor; readonly content: ByteSource }[];
  close(): Promise<void>;
}

/** What the blobs of one image may take of memory together; what is beyond goes to disk. */
const SPOOL_MEMORY_BYTES = 64 << 20;

/** Longest chain that block devices are stacked from. */
const MAX_LAYERS = 255;

/**
 * Converts one image: a data pass over each layer, several at a time, and a metadata pass in the order of the chain.
 * Nothing is returned before every layer has proven to be what the manifest and the config say.
 */
export async function convertManifest(manifest: Manifest, name: string, options: ManifestOptions): Promise<ConvertedManifest> {
  const { source, family, base } = options;
  const config = parseConfig(await source.blob(manifest.config), `${name}: config`);
  checkLayers(manifest, config, name);
  const memory = new SpoolMemory(SPOOL_MEMORY_BYTES);
  const spools = manifest.layers.map(
    (layer, index) => new BlobSpool({ path: spoolPath(options.directory, index, layer), keep: options.keepSpools, memory }),
  );
  const close = async (): Promise<void> => {
    await Promise.all(spools.map(async (spool) => await spool.close()));
  };
  try {
    const blobs = await convertLayers(manifest, config, spools, name, options);
    const layers = [...(base ? [base.blob] : []), ...blobs].map(({ digest, content }) => ({
      descriptor: layerDescriptor(digest, content.size, family),
      content,
    }));
    const descriptors = layers.map((layer) => layer.descriptor);
    const configBytes = outputConfig(config, descriptors);
    const configDescriptor = { mediaType: OUTPUT_TYPES[family].config, digest: digestOf(configBytes), size: configBytes.length };
    const bytes = outputManifest(manifest, configBytes, descriptors, family);
    return { manifest: bytes, mediaType: OUTPUT_TYPES[family].manifest, config: configBytes, configDescriptor, layers, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function checkLayers(manifest: Manifest, config: ImageConfig, name: string): void {
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== manifest.layers.length) {
    throw corrupt(`${name}: the manifest has ${manifest.layers.length} layers, the config ${diffIds.length} diff IDs`);
  }
  if (manifest.layers.length > MAX_LAYERS)
    throw unsupported(`${name}: ${manifest.layers.length} layers; at most ${MAX_LAYERS} can be stacked`);
  for (const [index, layer] of manifest.layers.entries()) {
    if (isConvertedLayer(layer)) throw unsupported(`${name}: layer ${index} is an overlaybd layer: the image is converted already`);
    if (!isTarLayer(layer.mediaType)) throw unsupported(`${name}: layer ${index} has media type ${layer.mediaType}, expected a tar layer`);
  }
}

function spoolPath(directory: string, index: number, layer: Descriptor): string {
  return join(directory, `${String(index).padStart(4, "0")}_${layer.digest}`, "overlaybd.commit");
}

/** A layer after its data pass, waiting for its turn in the chain. */
interface ScannedLayer {
  readonly scan: LayerScan;
  readonly writer: OverlaybdLayerWriter;
  readonly release: () => void;
}

async function convertLayers(
  manifest: Manifest,
  config: ImageConfig,
  spools: readonly BlobSpool[],
  name: string,
  options: ManifestOptions,
): Promise<LayerBlob[]> {
  const diffIds = config.rootfs.diff_ids;
  const chain = chainIds(diffIds);
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  const scans = manifest.layers.map(async (layer, index): Promise<ScannedLayer> => {
    const release = await options.scans.acquire();
    try {
      signal.throwIfAborted();
      const writer = new OverlaybdLayerWriter(spools[index], { ...options, ...layerIdentity(chain, index) });
      const scan = await scanOne(layer, diffIds[index], `${name}: layer ${index} (${layer.digest})`, writer, { ...options, signal });
      return { scan, writer, release };
    } catch (error) {
      release();
      failure.abort(error);
      throw error;
    }
  });
  try {
    return await buildLayers(scans, chain, name, options);
  } catch (error) {
    failure.abort(error);
    // Whoever still holds a slot gives it back; the first error is the one to report.
    for (const scan of await Promise.allSettled(scans)) if (scan.status === "fulfilled") scan.value.release();
    throw failure.signal.reason;
  }
}

/** The metadata pass: applies each layer to the filesystem that the layers below have made. */
async function buildLayers(
  scans: readonly Promise<ScannedLayer>[],
  chain: readonly Digest[],
  name: string,
  options: ManifestOptions,
): Promise<LayerBlob[]> {
  for (const scan of scans) scan.catch(() => {}); // each is awaited below, perhaps after it failed
  const blobs: LayerBlob[] = [];
  let filesystem: Ext4Writer | undefined;
  for (const [index, pending] of scans.entries()) {
    const { scan, writer, release } = await pending;
    filesystem ??= await openFilesystem(chain, options);
    const writable = filesystem;
    const blocks = applyLayer(writable, scan, `${name}: layer ${index}`);
    const blob = await writer.finish(blocks, (block) => writable.metadataBlock(block));
    release();
    options.observer.layerConverted?.({ index, blobBytes: blob.content.size });
    blobs.push(blob);
  }
  return blobs;
}

async function scanOne(
  layer: Descriptor,
  diffId: Digest,
  name: string,
  writer: OverlaybdLayerWriter,
  { source, signal, observer }: Pick<ManifestOptions, "source" | "signal" | "observer">,
): Promise<LayerScan> {
  const stored = observed(source.blobStream(layer, { signal }), (bytes) => observer.storedBytes?.(bytes));
  const scan = await scanLayer(stored, name, async (payload) => await writer.appendPayload(payload));
  if (scan.diffId !== diffId) throw corrupt(`${name}: its content has diff ID ${scan.diffId}, the config says ${diffId}`);
  return scan;
}

async function* observed(chunks: AsyncIterable<Uint8Array>, observe: (bytes: number) => void): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    yield chunk;
    observe(chunk.length);
  }
}

function applyLayer(filesystem: Ext4Writer, scan: LayerScan, name: string): LayerBlocks {
  try {
    filesystem.beginLayer(scan.payloadBlocks);
    for (const change of layerChanges(scan.entries)) filesystem.apply(change);
    return filesystem.finishLayer();
  } catch (error) {
    if (error instanceof LazyError) throw new LazyError(error.code, `${name}: ${error.message}`, { cause: error });
    throw error;
  }
}

async function openFilesystem(chain: readonly Digest[], options: ManifestOptions): Promise<Ext4Writer> {
  if (options.base) return await Ext4Writer.open(options.base.device);
  // Derived from the bottom layer, so that the same layers always give the same bytes.
  const identity = createHash("sha256").update(`lazylayer ext4 ${chain[0]}`).digest();
  return Ext4Writer.format({
    bytes: options.virtualSize,
    uuid: asUuid(identity.subarray(0, 16)),
    hashSeed: asUuid(identity.subarray(16, 32)),
  });
}

/** Marks 16 bytes as a UUID of version 8, whose other bits are free (RFC 9562). */
function asUuid(bytes: Uint8Array): Uint8Array {
  const uuid = new Uint8Array(bytes);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

/** A layer's UUID is the front of its chain ID; its parent's is that of the layer below. */
function layerIdentity(chain: readonly Digest[], index: number): { uuid: string; parentUuid: string | undefined } {
  return { uuid: uuidOf(chain[index]), parentUuid: index === 0 ? undefined : uuidOf(chain[index - 1]) };
}

function uuidOf(chainId: Digest): string {
  const hex = hexOf(chainId);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-");
}
