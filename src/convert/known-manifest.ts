import { LazyError } from "../errors.ts";
import { chainIds } from "../oci/chain-id.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { ConvertOptions } from "./convert-options.ts";
import type { ImageNode } from "./image-graph.ts";
import { identityOf, isLayer } from "./layer-identity.ts";
import type { KnownLayers } from "./known-layers.ts";
import type { LayerOptions } from "./layer-options.ts";
import { isConvertedLayer, layerDescriptor, OUTPUT_TYPES, outputImage, type OutputImage } from "./output-image.ts";

type ImageOptions = Pick<ConvertOptions, "family" | "referrer" | "base">;

/** The documents that an image is converted to, on top of these layers. */
export function outputOf({ manifest, config, descriptor }: ImageNode, layers: readonly Descriptor[], options: ImageOptions): OutputImage {
  return outputImage(manifest, config, layers, options.family, options.referrer ? descriptor : undefined);
}

/** Under which whole images are remembered: equal for runs that make the same manifest. */
export function manifestFingerprint({ fingerprint }: LayerOptions, { referrer }: ImageOptions): string {
  return referrer ? `${fingerprint},referrer` : fingerprint;
}

/**
 * What an image was converted to before, if the destination still has it. The manifest counts only if it is, byte by byte, what would
 * come out again on top of the layers that it names, and if the topmost of those says that it is the top of this chain; rows that name
 * another are removed.
 */
export async function findKnownManifest(
  node: ImageNode,
  destination: ImageStore,
  known: KnownLayers,
  layerOptions: LayerOptions,
  options: ImageOptions,
): Promise<OutputImage | undefined> {
  const mediaType = OUTPUT_TYPES[options.family].manifest;
  for (const row of await known.manifests(node.descriptor.digest, mediaType, manifestFingerprint(layerOptions, options))) {
    const descriptor = { mediaType, digest: row.digest, size: row.size };
    const found = await readAgain(node, destination, descriptor, layerOptions, options);
    if (found) return found;
    await known.forget(row);
  }
  return undefined;
}

async function readAgain(
  node: ImageNode,
  destination: ImageStore,
  descriptor: Descriptor,
  layerOptions: LayerOptions,
  options: ImageOptions,
): Promise<OutputImage | undefined> {
  try {
    const { layers } = parseManifest(
      await destination.manifest(descriptor),
      descriptor.mediaType,
      `${destination.name}@${descriptor.digest}`,
    );
    if (layers.length !== node.manifest.layers.length + (options.base ? 1 : 0) || !layers.every(isConvertedLayer)) return undefined;
    const again = layers.map((layer) => layerDescriptor(layer.digest, layer.size, options.family));
    const output = outputOf(node, again, options);
    if (output.descriptor.digest !== descriptor.digest) return undefined;
    if (!(await isTopOf(node, destination, again, layerOptions))) return undefined;
    // Its registry may have lost some of it.
    const blobs = [output.configDescriptor, ...again];
    const present = await Promise.all(blobs.map(async ({ digest, size }) => await destination.hasBlob(digest, size)));
    return present.every(Boolean) ? output : undefined;
  } catch (error) {
    // Gone, or something else altogether.
    if (error instanceof LazyError && ["NOT_FOUND", "CORRUPT", "UNSUPPORTED"].includes(error.code)) return undefined;
    throw error;
  }
}

/** A layer's UUID stands for its chain, so that of the topmost tells images apart that differ in their layers alone. */
async function isTopOf(
  { config }: ImageNode,
  destination: ImageStore,
  layers: readonly Descriptor[],
  { virtualSize }: LayerOptions,
): Promise<boolean> {
  const chain = chainIds(config.rootfs.diff_ids);
  if (chain.length === 0) return true;
  const top = await destination.blobSource(layers[layers.length - 1]);
  try {
    return await isLayer(top, identityOf(chain, chain.length - 1, virtualSize));
  } finally {
    await top.close();
  }
}
