import type { ImageConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import { encodeJson } from "../oci/json.ts";
import type { ImageIndex } from "../oci/index.ts";
import type { Manifest } from "../oci/manifest.ts";
import {
  DOCKER_CONFIG,
  DOCKER_INDEX,
  DOCKER_LAYER_TAR,
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_TAR,
  OCI_MANIFEST,
  type MediaTypeFamily,
} from "../oci/media-types.ts";

/** The media types of converted images, by family. */
export const OUTPUT_TYPES: Readonly<Record<MediaTypeFamily, Readonly<Record<"index" | "manifest" | "config" | "layer", string>>>> = {
  docker: { index: DOCKER_INDEX, manifest: DOCKER_MANIFEST, config: DOCKER_CONFIG, layer: DOCKER_LAYER_TAR },
  oci: { index: OCI_INDEX, manifest: OCI_MANIFEST, config: OCI_CONFIG, layer: OCI_LAYER_TAR },
};

const LAYER_VERSION = "0.1.0";

/** What converted images are among the referrers of their source. */
const ARTIFACT_TYPE = "application/vnd.containerd.overlaybd.native.v1+json";

/** Keys of an image's layer annotations; see docs/formats/image.md. */
const ANNOTATION = {
  blobDigest: "containerd.io/snapshot/overlaybd/blob-digest",
  blobSize: "containerd.io/snapshot/overlaybd/blob-size",
  version: "containerd.io/snapshot/overlaybd/version",
} as const;

/** Whether a layer is one that a conversion made, in any of overlaybd's forms. */
export function isConvertedLayer(layer: Descriptor): boolean {
  return layer.annotations?.[ANNOTATION.version] !== undefined;
}

export function layerDescriptor(digest: Digest, size: number, family: MediaTypeFamily): Descriptor {
  const annotations = { [ANNOTATION.blobDigest]: digest, [ANNOTATION.blobSize]: String(size), [ANNOTATION.version]: LAYER_VERSION };
  return { mediaType: OUTPUT_TYPES[family].layer, digest, size, annotations };
}

/** The source's config with the converted layers' digests; everything else stays. */
function outputConfig(config: ImageConfig, layers: readonly Descriptor[]): Uint8Array {
  return encodeJson({ ...config, rootfs: { ...config.rootfs, diff_ids: layers.map((layer) => layer.digest) } });
}

/** The documents of a converted image. */
export interface OutputImage {
  readonly config: Uint8Array;
  readonly configDescriptor: Descriptor;
  readonly manifest: Uint8Array;
  readonly descriptor: Descriptor;
}

/**
 * The source's manifest with the converted config and layers; annotations and other keys stay.
 * `subject` makes it a referrer of that document, instead of whatever its source referred to.
 */
export function outputImage(
  source: Manifest,
  sourceConfig: ImageConfig,
  layers: readonly Descriptor[],
  family: MediaTypeFamily,
  subject: Descriptor | undefined,
): OutputImage {
  const types = OUTPUT_TYPES[family];
  const config = outputConfig(sourceConfig, layers);
  const configDescriptor = describe(types.config, config);
  const { schemaVersion, mediaType: _type, artifactType: _artifact, config: _config, layers: _layers, subject: _subject, ...rest } = source;
  const { annotations, ...others } = rest;
  const manifest = encodeJson({
    schemaVersion,
    mediaType: types.manifest,
    ...artifactTypeOf(source, subject),
    config: configDescriptor,
    layers,
    ...subjectOf(source, subject),
    ...(annotations !== undefined && { annotations }),
    ...others,
  });
  return { config, configDescriptor, manifest, descriptor: describe(types.manifest, manifest) };
}

/** The source's index with other entries; annotations and other keys stay. */
export function outputIndex(
  source: ImageIndex,
  mediaType: string,
  manifests: readonly Descriptor[],
  subject: Descriptor | undefined,
): Uint8Array {
  const { schemaVersion, mediaType: _type, artifactType: _artifact, manifests: _manifests, subject: _subject, ...rest } = source;
  const { annotations, ...others } = rest;
  return encodeJson({
    schemaVersion,
    mediaType,
    ...artifactTypeOf(source, subject),
    manifests,
    ...subjectOf(source, subject),
    ...(annotations !== undefined && { annotations }),
    ...others,
  });
}

/** The entry of an index for what its image was converted to. What the entry itself held of the source's manifest goes. */
export function outputEntry(entry: Descriptor, { mediaType, digest, size }: Descriptor): Descriptor {
  const { data: _data, ...rest }: Descriptor & { readonly data?: unknown } = entry;
  return { ...rest, mediaType, digest, size };
}

export function describe(mediaType: string, bytes: Uint8Array): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

function artifactTypeOf(source: Manifest | ImageIndex, subject: Descriptor | undefined): { artifactType?: string } {
  const artifactType = subject ? ARTIFACT_TYPE : source.artifactType;
  return artifactType === undefined ? {} : { artifactType };
}

function subjectOf(source: Manifest | ImageIndex, given: Descriptor | undefined): { subject?: Descriptor } {
  const subject = given ? { mediaType: given.mediaType, digest: given.digest, size: given.size } : source.subject;
  return subject === undefined ? {} : { subject };
}
