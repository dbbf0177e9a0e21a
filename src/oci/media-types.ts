/** Media types of the OCI image specification, Docker's schema 2, and the layer forms that both families know. */

export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
export const OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar";
export const OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";
export const OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd";

/** The config of a manifest that needs none: `{}`. */
export const EMPTY_CONFIG = "application/vnd.oci.empty.v1+json";

export const DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json";
export const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
export const DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
export const DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar";
export const DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip";
export const DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd";

const OCI_FOREIGN_PREFIX = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN_PREFIX = "application/vnd.docker.image.rootfs.foreign.diff.tar";

const LAYERS: ReadonlySet<string> = new Set([
  OCI_LAYER_TAR,
  OCI_LAYER_GZIP,
  OCI_LAYER_ZSTD,
  DOCKER_LAYER_TAR,
  DOCKER_LAYER_GZIP,
  DOCKER_LAYER_ZSTD,
]);

export type MediaTypeFamily = "oci" | "docker";
export type DocumentKind = "manifest" | "index";

/** What a media type says a document is; undefined for anything that is neither. */
export function documentKind(mediaType: string): DocumentKind | undefined {
  if (mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST) return "manifest";
  if (mediaType === OCI_INDEX || mediaType === DOCKER_INDEX) return "index";
  return undefined;
}

/** The config of an image; other manifests have something else there, or next to nothing. */
export function isImageConfig(mediaType: string): boolean {
  return mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;
}

/** A layer that holds a tar stream: plain, gzip or zstd, distributable or foreign. */
export function isTarLayer(mediaType: string): boolean {
  return LAYERS.has(mediaType) || isForeignLayer(mediaType);
}

/** A layer that its maker did not allow to be pushed to registries; the blob may be missing there. */
export function isForeignLayer(mediaType: string): boolean {
  return mediaType.startsWith(OCI_FOREIGN_PREFIX) || mediaType.startsWith(DOCKER_FOREIGN_PREFIX);
}

const LAYER_TYPES = {
  docker: { none: DOCKER_LAYER_TAR, gzip: DOCKER_LAYER_GZIP, zstd: DOCKER_LAYER_ZSTD },
  oci: { none: OCI_LAYER_TAR, gzip: OCI_LAYER_GZIP, zstd: OCI_LAYER_ZSTD },
} as const;

/** The media type of a distributable layer that is compressed so. */
export function layerMediaType(family: MediaTypeFamily, compression: keyof (typeof LAYER_TYPES)["oci"]): string {
  return LAYER_TYPES[family][compression];
}

export function familyOf(mediaType: string): MediaTypeFamily {
  return mediaType.startsWith("application/vnd.docker.") ? "docker" : "oci";
}
