import type { ImageConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import { encodeJson } from "../oci/json.ts";
import type { ImageIndex } from "../oci/index.ts";
import type { Manifest } from "../oci/manifest.ts";
import {
  DOCKER_CONFIG,
  DOCKER_INDEX,
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
  type MediaTypeFamily,
} from "../oci/media-types.ts";
import { FORMAT_TRAITS, type ImageFormat } from "./image-format.ts";

/** The media types of converted images' documents, by family. */
export const OUTPUT_TYPES: Readonly<Record<MediaTypeFamily, Readonly<Record<"index" | "manifest" | "config", string>>>> = {
  docker: { index: DOCKER_INDEX, manifest: DOCKER_MANIFEST, config: DOCKER_CONFIG },
  oci: { index: OCI_INDEX, manifest: OCI_MANIFEST, config: OCI_CONFIG },
};

/** A layer of a converted image. */
export interface OutputLayer {
  readonly descriptor: Descriptor;
  /** Digest of the blob without its compression. */
  readonly diffId: Digest;
  /** The stored layer that a turboOCI layer refers to. */
  readonly data?: Descriptor | undefined;
}

/** The source's config with the converted layers' digests; everything else stays. */
function outputConfig(config: ImageConfig, layers: readonly OutputLayer[]): Uint8Array {
  return encodeJson({ ...config, rootfs: { ...config.rootfs, diff_ids: layers.map(({ diffId }) => diffId) } });
}

/** The documents of a converted image. */
export interface OutputImage {
  readonly config: Uint8Array;
  readonly configDescriptor: Descriptor;
  readonly manifest: Uint8Array;
  readonly descriptor: Descriptor;
}

export interface OutputOptions {
  readonly format: ImageFormat;
  readonly family: MediaTypeFamily;
  /** What the result refers to, instead of whatever its source referred to. */
  readonly subject: Descriptor | undefined;
}

/**
 * The source's manifest with the converted config and layers; annotations and other keys stay.
 * `subject` makes it a referrer of that document, instead of whatever its source referred to.
 */
export function outputImage(
  source: Manifest,
  sourceConfig: ImageConfig,
  layers: readonly OutputLayer[],
  { format, family, subject }: OutputOptions,
): OutputImage {
  const types = OUTPUT_TYPES[family];
  const config = outputConfig(sourceConfig, layers);
  const configDescriptor = describe(types.config, config);
  const { schemaVersion, mediaType: _type, artifactType: _artifact, config: _config, layers: _layers, subject: _subject, ...rest } = source;
  const { annotations, ...others } = rest;
  const manifest = encodeJson({
    schemaVersion,
    mediaType: types.manifest,
    ...artifactTypeOf(source, format, subject),
    config: configDescriptor,
    layers: layers.map(({ descriptor }) => descriptor),
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
  { format, subject }: Pick<OutputOptions, "format" | "subject">,
): Uint8Array {
  const { schemaVersion, mediaType: _type, artifactType: _artifact, manifests: _manifests, subject: _subject, ...rest } = source;
  const { annotations, ...others } = rest;
  return encodeJson({
    schemaVersion,
    mediaType,
    ...artifactTypeOf(source, format, subject),
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

function artifactTypeOf(source: Manifest | ImageIndex, format: ImageFormat, subject: Descriptor | undefined): { artifactType?: string } {
  const artifactType = subject ? FORMAT_TRAITS[format].artifactType : source.artifactType;
  return artifactType === undefined ? {} : { artifactType };
}

function subjectOf(source: Manifest | ImageIndex, given: Descriptor | undefined): { subject?: Descriptor } {
  const subject = given ? { mediaType: given.mediaType, digest: given.digest, size: given.size } : source.subject;
  return subject === undefined ? {} : { subject };
}
