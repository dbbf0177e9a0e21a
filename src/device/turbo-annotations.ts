import { corrupt } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { parseDigest, type Digest } from "../oci/digest.ts";

const PREFIX = "containerd.io/snapshot/overlaybd/";
/** Every layer of an overlaybd image carries it (see docs/formats/image.md and docs/formats/turbo-oci.md). */
const VERSION = `${PREFIX}version`;
/** Of turboOCI layers; the second by its older name. */
const TURBO_VERSIONS: ReadonlySet<string | undefined> = new Set(["0.1.0-turbo.ociv1", "0.1.0-fastoci"]);

/** The blob that a turboOCI layer's data is in: the layer that it was made from. */
export interface TurboTarget {
  readonly digest: Digest;
  /** As the layer declares it; undefined if it does not. */
  readonly mediaType: string | undefined;
}

/** Whether a layer is declared to be overlaybd, of either kind. */
export function isDeclaredOverlaybd({ annotations }: Descriptor): boolean {
  return annotations?.[VERSION] !== undefined;
}

/** The target of a layer that is declared to be turboOCI; undefined for others. Throws `CORRUPT` if it names none. */
export function turboTargetOf({ annotations, digest }: Descriptor): TurboTarget | undefined {
  if (annotations === undefined || !TURBO_VERSIONS.has(annotations[VERSION])) return undefined;
  const where = `layer ${digest}`;
  const target = annotations[`${PREFIX}turbo-oci/target-digest`] ?? annotations[`${PREFIX}fastoci/target-digest`];
  if (target === undefined) {
    throw corrupt(`${where}: is declared turboOCI, but has no annotation ${PREFIX}turbo-oci/target-digest that says where its data is`);
  }
  return {
    digest: parseDigest(target, `${where}: annotation ${PREFIX}turbo-oci/target-digest`),
    mediaType: annotations[`${PREFIX}turbo-oci/target-media-type`] ?? annotations[`${PREFIX}fastoci/target-media-type`],
  };
}
