import { LazyError } from "../errors.ts";
import { parseConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { parseManifest, type Manifest } from "../oci/manifest.ts";
import { baseLayerOf } from "./base-layer.ts";
import type { ConvertOptions, ConvertTarget } from "./convert-options.ts";
import { ANNOTATION, isConvertedLayer } from "../oci/overlaybd-layer.ts";
import type { ImageFormat } from "./image-format.ts";
import type { ImageNode } from "./image-graph.ts";
import { readLayer, unreadLayer } from "./stored-layer.ts";
import type { KnownLayers } from "./known-layers.ts";
import { wantedLayers } from "./layer-identity.ts";
import type { LayerOptions } from "./layer-options.ts";
import { OUTPUT_TYPES, outputImage, type OutputImage, type OutputLayer } from "./output-image.ts";

type ImageOptions = Pick<ConvertOptions, "family" | "referrer" | "base">;

/** The documents that an image is converted to, on top of these layers. */
export function outputOf(
  { manifest, config, descriptor }: ImageNode,
  layers: readonly OutputLayer[],
  format: ImageFormat,
  { family, referrer }: ImageOptions,
): OutputImage {
  return outputImage(manifest, config, layers, { format, family, subject: referrer ? descriptor : undefined });
}

/** Under which whole images are remembered: equal for runs that make the same manifest. */
export function manifestFingerprint({ fingerprint }: LayerOptions, { referrer }: ImageOptions): string {
  return referrer ? `${fingerprint},referrer` : fingerprint;
}

/** An image as it was converted before. */
export interface KnownImage {
  readonly output: OutputImage;
  /** Without a base layer. */
  readonly layers: readonly OutputLayer[];
}

/**
 * What an image was converted to before, if the destination still has it. The manifest counts only if it is, byte by byte, what would
 * come out again on top of the layers that it names, and if the topmost of those says that it is the top of this chain; rows that name
 * another are removed.
 */
export async function findKnownManifest(
  node: ImageNode,
  target: ConvertTarget,
  known: KnownLayers,
  layerOptions: LayerOptions,
  options: ImageOptions,
): Promise<KnownImage | undefined> {
  const mediaType = OUTPUT_TYPES[options.family].manifest;
  for (const row of await known.manifests(node.descriptor.digest, mediaType, manifestFingerprint(layerOptions, options))) {
    const found = await readAgain(node, target, { mediaType, digest: row.digest, size: row.size }, layerOptions, options);
    if (found) return found;
    await known.forget(row);
  }
  return undefined;
}

async function readAgain(
  node: ImageNode,
  { destination, format }: ConvertTarget,
  descriptor: Descriptor,
  layerOptions: LayerOptions,
  options: ImageOptions,
): Promise<KnownImage | undefined> {
  const { base, family } = options;
  const knownOptions = { ...layerOptions, family };
  try {
    const name = `${destination.name}@${descriptor.digest}`;
    const manifest = parseManifest(await destination.manifest(descriptor), descriptor.mediaType, name);
    const diffIds = format === "overlaybd" ? manifest.layers.map(({ digest }) => digest) : await readDiffIds(destination, manifest, name);
    const below = base ? [baseLayerOf(base, family, layerOptions.filesystem)] : [];
    const wanted = wantedLayers(format, node);
    const own = manifest.layers.slice(below.length);
    const counts = [own.length, diffIds.length - below.length];
    if (counts.some((count) => count !== wanted.length) || !manifest.layers.every(isConvertedLayer)) return undefined;
    // What is believed here is what the documents would have to say again.
    const layers = own.map((layer, index) => ({
      ...unreadLayer(layer, wanted[index], layer.annotations?.[ANNOTATION.targetMediaType], knownOptions),
      diffId: diffIds[below.length + index],
    }));
    const output = outputOf(node, [...below, ...layers], format, options);
    if (output.descriptor.digest !== descriptor.digest) return undefined;
    // A layer's UUID stands for its chain, so that of the topmost tells images apart that differ in their layers alone.
    const top = wanted.length - 1;
    if (top >= 0 && !(await readLayer(destination, layers[top].descriptor, wanted, top, knownOptions))) return undefined;
    // Its registry may have lost some of it.
    const blobs = [output.configDescriptor, ...[...below, ...layers].map((layer) => layer.descriptor)];
    const present = await Promise.all(blobs.map(async ({ digest, size }) => await destination.hasBlob(digest, size)));
    return present.every(Boolean) ? { output, layers } : undefined;
  } catch (error) {
    // Gone, or something else altogether.
    if (error instanceof LazyError && ["NOT_FOUND", "CORRUPT", "UNSUPPORTED"].includes(error.code)) return undefined;
    throw error;
  }
}

/** Of layers that are compressed only the config tells. */
async function readDiffIds(destination: ImageStore, { config }: Manifest, name: string): Promise<readonly Digest[]> {
  return parseConfig(await destination.blob(config), `${name}: config`).rootfs.diff_ids;
}
