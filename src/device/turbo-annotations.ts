import { corrupt } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { parseDigest, type Digest } from "../oci/digest.ts";
import { ANNOTATION, LAYER_VERSION, OLDER_ANNOTATION } from "../oci/overlaybd-layer.ts";

const TURBO_VERSIONS: ReadonlySet<string | undefined> = new Set([LAYER_VERSION.turbo, LAYER_VERSION.olderTurbo]);

/** The blob that a turboOCI layer's data is in: the layer that it was made from. */
export interface TurboTarget {
  readonly digest: Digest;
  /** As the layer declares it; undefined if it does not. */
  readonly mediaType: string | undefined;
}

/** The target of a layer that is declared to be turboOCI; undefined for others. Throws `CORRUPT` if it names none. */
export function turboTargetOf({ annotations, digest }: Descriptor): TurboTarget | undefined {
  if (annotations === undefined || !TURBO_VERSIONS.has(annotations[ANNOTATION.version])) return undefined;
  const where = `layer ${digest}`;
  const target = annotations[ANNOTATION.targetDigest] ?? annotations[OLDER_ANNOTATION.targetDigest];
  if (target === undefined) {
    throw corrupt(`${where}: is declared turboOCI, but has no annotation ${ANNOTATION.targetDigest} that says where its data is`);
  }
  return {
    digest: parseDigest(target, `${where}: annotation ${ANNOTATION.targetDigest}`),
    mediaType: annotations[ANNOTATION.targetMediaType] ?? annotations[OLDER_ANNOTATION.targetMediaType],
  };
}
