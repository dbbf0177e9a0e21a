import type { Descriptor } from "./descriptor.ts";

/** What descriptors of converted layers say of them; see docs/formats/image.md and docs/formats/turbo-oci.md. */

const PREFIX = "containerd.io/snapshot/overlaybd";

/** Keys of annotations. */
export const ANNOTATION = {
  accelerationLayer: `${PREFIX}/acceleration-layer`,
  blobDigest: `${PREFIX}/blob-digest`,
  blobSize: `${PREFIX}/blob-size`,
  filesystem: `${PREFIX}/blob-fs-type`,
  targetDigest: `${PREFIX}/turbo-oci/target-digest`,
  targetMediaType: `${PREFIX}/turbo-oci/target-media-type`,
  version: `${PREFIX}/version`,
} as const;

/** Keys that older turboOCI layers have instead of those above. */
export const OLDER_ANNOTATION = {
  targetDigest: `${PREFIX}/fastoci/target-digest`,
  targetMediaType: `${PREFIX}/fastoci/target-media-type`,
} as const;

/** Values of the version annotation. */
export const LAYER_VERSION = { overlaybd: "0.1.0", turbo: "0.1.0-turbo.ociv1", olderTurbo: "0.1.0-fastoci" } as const;

/** Whether a layer is declared to be one that a conversion made, in any of overlaybd's forms. */
export function isConvertedLayer({ annotations }: Descriptor): boolean {
  return annotations?.[ANNOTATION.version] !== undefined;
}
