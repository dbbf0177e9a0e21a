import type { Compression } from "../compression/decompress.ts";
import { MemorySource } from "../bytes/source.ts";
import { readTurboBlob } from "../device/turbo-blob.ts";
import { LazyError } from "../errors.ts";
import { parseGzipIndex } from "../formats/gzip-index/gzip-index-reader.ts";
import { readSealedFile } from "../formats/lsmt/lsmt-reader.ts";
import { openZFile } from "../formats/zfile/zfile-reader.ts";
import { parseZstdIndex } from "../formats/zstd-index/zstd-index-reader.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { familyOf, layerMediaType, type MediaTypeFamily } from "../oci/media-types.ts";
import { overlaybdDescriptor, turboDescriptor } from "./image-format.ts";
import { identityOf, isLayer, saysItIs, type LayerIdentity, type WantedLayer } from "./layer-identity.ts";
import type { LayerOptions } from "./layer-options.ts";
import type { OutputLayer } from "./output-image.ts";

type Blob = Pick<Descriptor, "digest" | "size">;

export interface KnownLayerOptions extends Pick<LayerOptions, "format" | "filesystem" | "virtualSize"> {
  readonly family: MediaTypeFamily;
}

/**
 * A layer of a destination, if the blob says of itself that it is the one that is wanted; undefined for what is no layer at all, or
 * damaged. Of an overlaybd layer the front and the end are read; a turboOCI layer is small, and its diff ID is not known otherwise.
 * With `foreignFilesystem`, the layer must bring a filesystem with that UUID.
 */
export async function readLayer(
  destination: ImageStore,
  blob: Blob,
  wanted: readonly WantedLayer[],
  index: number,
  options: KnownLayerOptions,
  foreignFilesystem?: string,
): Promise<OutputLayer | undefined> {
  const { format, family, filesystem, virtualSize } = options;
  const identity = identityOf(wanted, index, virtualSize);
  if (format === "turbo") return await readTurboLayer(destination, blob, wanted[index], identity, options);
  const descriptor = overlaybdDescriptor(blob, family, filesystem);
  const source = await destination.blobSource(descriptor);
  try {
    return (await isLayer(source, identity, foreignFilesystem)) ? { descriptor, diffId: blob.digest } : undefined;
  } finally {
    await source.close();
  }
}

async function readTurboLayer(
  destination: ImageStore,
  blob: Blob,
  { source }: WantedLayer,
  identity: LayerIdentity,
  { family, filesystem }: KnownLayerOptions,
): Promise<OutputLayer | undefined> {
  const content = await destination.blobSource({ mediaType: source.mediaType, ...blob });
  try {
    const { metadata, gzipIndex, zstdIndex, diffId } = await readTurboBlob(content, blob.digest);
    const { trailer } = await readSealedFile(await openZFile(new MemorySource(metadata.bytes, metadata.name)), 0);
    if (!saysItIs(trailer, identity)) return undefined;
    // Its index could be of a layer with the same content in another blob.
    const index = gzipIndex
      ? parseGzipIndex(gzipIndex.bytes, gzipIndex.name)
      : zstdIndex && parseZstdIndex(zstdIndex.bytes, zstdIndex.name);
    if (index !== undefined && index.storedBytes !== source.size) return undefined;
    const data = storedLayer(source, gzipIndex ? "gzip" : zstdIndex ? "zstd" : "none");
    return { descriptor: turboDescriptor(blob, family, filesystem, data), diffId, data };
  } catch (error) {
    if (error instanceof LazyError && (error.code === "CORRUPT" || error.code === "UNSUPPORTED")) return undefined;
    throw error;
  } finally {
    await content.close();
  }
}

/** What a layer would be, as far as that can be said without having read it. */
export function unreadLayer(
  blob: Blob,
  { source }: WantedLayer,
  dataMediaType: string = source.mediaType,
  { format, family, filesystem }: KnownLayerOptions,
): Omit<OutputLayer, "diffId"> {
  if (format === "overlaybd") return { descriptor: overlaybdDescriptor(blob, family, filesystem) };
  const data = { mediaType: dataMediaType, digest: source.digest, size: source.size };
  return { descriptor: turboDescriptor(blob, family, filesystem, data), data };
}

/** A layer as its source stores it, with the media type that says so; what the source says of it may be wrong. */
export function storedLayer({ mediaType, digest, size }: Descriptor, compression: Compression): Descriptor {
  return { mediaType: layerMediaType(familyOf(mediaType), compression), digest, size };
}
