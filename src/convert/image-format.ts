import type { Descriptor } from "../oci/descriptor.ts";
import { DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, OCI_LAYER_GZIP, OCI_LAYER_TAR, type MediaTypeFamily } from "../oci/media-types.ts";
import { ANNOTATION, LAYER_VERSION } from "../oci/overlaybd-layer.ts";

/** What images are converted to: layers of their own, or layers that say where the source's layers hold what. */
export type ImageFormat = "overlaybd" | "turbo";

export const FILESYSTEM_TYPES = ["ext4", "erofs"] as const;
export type FilesystemType = (typeof FILESYSTEM_TYPES)[number];

/** What tells the formats apart in the documents of an image; see docs/formats/image.md. */
interface FormatTraits {
  /** Value of the version annotation of every layer. */
  readonly layerVersion: string;
  readonly layerType: Readonly<Record<MediaTypeFamily, string>>;
  /** What images of the format are among the referrers of their source. */
  readonly artifactType: string;
  /** The file of a layer's blob where blobs are kept. */
  readonly blobName: string;
}

export const FORMAT_TRAITS: Readonly<Record<ImageFormat, FormatTraits>> = {
  overlaybd: {
    layerVersion: LAYER_VERSION.overlaybd,
    layerType: { docker: DOCKER_LAYER_TAR, oci: OCI_LAYER_TAR },
    artifactType: "application/vnd.containerd.overlaybd.native.v1+json",
    blobName: "overlaybd.commit",
  },
  turbo: {
    layerVersion: LAYER_VERSION.turbo,
    layerType: { docker: DOCKER_LAYER_GZIP, oci: OCI_LAYER_GZIP },
    artifactType: "application/vnd.containerd.overlaybd.turbo.v1+json",
    blobName: "turboOCIv1.tar.gz",
  },
};

type Blob = Pick<Descriptor, "digest" | "size">;

export function overlaybdDescriptor(blob: Blob, family: MediaTypeFamily, filesystem: FilesystemType): Descriptor {
  return layerDescriptor("overlaybd", blob, family, filesystem, {});
}

/** `target` is the layer, as it is stored, that the turboOCI layer refers to. */
export function turboDescriptor(blob: Blob, family: MediaTypeFamily, filesystem: FilesystemType, target: Descriptor): Descriptor {
  const { targetDigest, targetMediaType } = ANNOTATION;
  return layerDescriptor("turbo", blob, family, filesystem, { [targetDigest]: target.digest, [targetMediaType]: target.mediaType });
}

function layerDescriptor(
  format: ImageFormat,
  { digest, size }: Blob,
  family: MediaTypeFamily,
  filesystem: FilesystemType,
  more: Readonly<Record<string, string>>,
): Descriptor {
  const { layerType, layerVersion } = FORMAT_TRAITS[format];
  const annotations = {
    [ANNOTATION.blobDigest]: digest,
    // Who finds none takes it for ext4.
    ...(filesystem === "ext4" ? {} : { [ANNOTATION.filesystem]: filesystem }),
    [ANNOTATION.blobSize]: String(size),
    ...more,
    [ANNOTATION.version]: layerVersion,
  };
  return { mediaType: layerType[family], digest, size, annotations };
}
