import type { ImageConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import { encodeJson } from "../oci/json.ts";
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
export function outputConfig(config: ImageConfig, layers: readonly Descriptor[]): Uint8Array {
  return encodeJson({ ...config, rootfs: { ...config.rootfs, diff_ids: layers.map((layer) => layer.digest) } });
}

/** The source's manifest with the converted config and layers; annotations and other keys stay. */
export function outputManifest(source: Manifest, config: Uint8Array, layers: readonly Descriptor[], family: MediaTypeFamily): Uint8Array {
  const { schemaVersion, mediaType: _type, artifactType, config: _config, layers: _layers, subject, annotations, ...others } = source;
  return encodeJson({
    schemaVersion,
    mediaType: OUTPUT_TYPES[family].manifest,
    ...(artifactType !== undefined && { artifactType }),
    config: { mediaType: OUTPUT_TYPES[family].config, digest: digestOf(config), size: config.length },
    layers,
    ...(subject !== undefined && { subject }),
    ...(annotations !== undefined && { annotations }),
    ...others,
  });
}
