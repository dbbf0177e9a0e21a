import { join } from "node:path";
import type { CompressBlocks, CompressedBatch } from "../compression/block-codec.ts";
import { corrupt, unsupported } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { isTarLayer } from "../oci/media-types.ts";
import { BlobSpool, type SpoolOptions } from "./blob-spool.ts";
import { isConvertedLayer } from "../oci/overlaybd-layer.ts";
import type { ConvertedLayer } from "./converted-layer.ts";
import { FORMAT_TRAITS, type ImageFormat } from "./image-format.ts";
import type { ImageNode } from "./image-graph.ts";
import { LayerBuilder, type BuilderOptions, type LayersTarget, type ScannedLayer } from "./layer-builder.ts";
import { identityOf } from "./layer-identity.ts";
import type { LayerWriter } from "./layer-writer.ts";
import { OverlaybdLayerWriter } from "./overlaybd-layer.ts";
import { recompressLayer } from "./recompress.ts";
import type { ScanThreads } from "./scan-threads.ts";
import type { Semaphore } from "./semaphore.ts";
import { TurboLayerWriter, type RecompressedLayer } from "./turbo-layer.ts";

export interface LayersOptions extends BuilderOptions {
  readonly threads: ScanThreads;
  /** Layers that are scanned at the same time. */
  readonly scans: Semaphore;
  readonly layerRead: (index: number, bytes: number) => void;
  readonly signal: AbortSignal;
}

interface WriterTools {
  readonly onBaseLayer: boolean;
  readonly name: string;
  readonly compress: CompressBlocks;
  readonly recompress: (spool: BlobSpool) => Promise<RecompressedLayer>;
}

/** Longest chain that block devices are stacked from. */
const MAX_LAYERS = 255;

/** Where the blobs of an image's layers are made. Whoever has them closes them. */
export function openSpools(
  { manifest }: ImageNode,
  format: ImageFormat,
  directory: string,
  options: Omit<SpoolOptions, "path">,
): BlobSpool[] {
  return manifest.layers.map((layer, index) => {
    const name = `${String(index).padStart(4, "0")}_${layer.digest}`;
    return new BlobSpool({ ...options, path: join(directory, name, FORMAT_TRAITS[format].blobName) });
  });
}

/**
 * Converts the layers of one image into the spools of each target: a data pass over each layer, several at a time, and a metadata pass
 * in the order of the chain. Returns the layers by target when every layer has proven to be what the manifest and the config say;
 * nothing is stored anywhere yet.
 */
export async function convertLayers(image: ImageNode, options: LayersOptions): Promise<ConvertedLayer[][]> {
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  const scan = async (index: number): Promise<ScannedLayer | undefined> => {
    if (options.targets.every(({ known }) => known[index])) return undefined;
    const release = await options.scans.acquire();
    try {
      signal.throwIfAborted();
      const scanned = await scanOne(image, image.manifest.layers[index], index, { ...options, signal });
      // What is left of a layer without payload is small, and need not hold up the others until those below are done.
      if (!scanned.hasPayload) release();
      return { ...scanned, release: scanned.hasPayload ? release : () => {} };
    } catch (error) {
      release();
      failure.abort(error);
      throw error;
    }
  };
  const scans: Promise<ScannedLayer | undefined>[] = [];
  for (const index of scanOrder(image, options)) scans[index] = scan(index);
  try {
    return await new LayerBuilder(image.name, options).build(scans);
  } catch (error) {
    failure.abort(error);
    // Whoever still holds a slot gives it back at once, as others wait for one; the first error is the one to report.
    await Promise.allSettled(scans.map(async (scan) => (await scan)?.release()));
    throw failure.signal.reason;
  }
}

/**
 * Layers from the lowest up, as they are sent; those that nothing is sent of but what is made in the end the largest first, so that no
 * thread is left alone with one.
 */
function scanOrder({ manifest }: ImageNode, { targets }: LayersOptions): number[] {
  const order = manifest.layers.map((_, index) => index);
  if (targets.some(({ options }) => options.format === "overlaybd")) return order;
  return order.sort((a, b) => manifest.layers[b].size - manifest.layers[a].size);
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

async function scanOne(
  { config, name: image }: ImageNode,
  layer: Descriptor,
  index: number,
  { source, targets, base, threads, signal, layerRead }: LayersOptions,
): Promise<Omit<ScannedLayer, "release"> & { readonly hasPayload: boolean }> {
  const name = `${image}: layer ${index} (${layer.digest})`;
  const recompress = async (spool: BlobSpool): Promise<RecompressedLayer> =>
    await recompressLayer(layer, { source, threads, spool, name, signal });
  const writers = targets.map((target) =>
    target.known[index]
      ? undefined
      : openWriter(target, index, { name, onBaseLayer: base !== undefined, compress: threads.compress, recompress }),
  );
  const takesPayload = writers.find((writer) => writer?.needsPayload);
  const stored = observed(source.blobStream(layer, { signal }), (bytes) => layerRead(index, bytes));
  const put = takesPayload && (async (batch: CompressedBatch, bytes: number) => await takesPayload.appendPayload(batch, bytes));
  const scan = await threads.scan(stored, name, put, { indexed: writers.some((writer) => writer?.needsIndex) });
  const diffId = config.rootfs.diff_ids[index];
  if (scan.diffId !== diffId) throw corrupt(`${name}: its content has diff ID ${scan.diffId}, the config says ${diffId}`);
  return { scan, writers, hasPayload: takesPayload !== undefined };
}

function openWriter(
  { options, family, wanted, spools, openDataSpool }: LayersTarget,
  index: number,
  { name, onBaseLayer, compress, recompress }: WriterTools,
): LayerWriter {
  const { format, filesystem, virtualSize } = options;
  const writing = { name, spool: spools[index], family, filesystem, compress, ...identityOf(wanted, index, virtualSize) };
  if (format === "overlaybd") return new OverlaybdLayerWriter(writing);
  return new TurboLayerWriter({
    ...writing,
    hidesBelow: index > 0 || onBaseLayer,
    source: wanted[index].source,
    recompress: openDataSpool && (async () => await recompress(openDataSpool(index))),
  });
}

async function* observed(chunks: AsyncIterable<Uint8Array>, observe: (bytes: number) => void): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    yield chunk;
    observe(chunk.length);
  }
}
