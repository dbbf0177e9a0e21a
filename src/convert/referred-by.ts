import { turboTargetOf } from "../device/turbo-annotations.ts";
import { openTurboLayer } from "../device/turbo-layer.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";

/**
 * The layers that an image's turboOCI layers refer to. Their sizes, which no manifest tells, are read from the turboOCI layers.
 * Throws `NOT_FOUND` when one of them is not there, and what opening the layers throws.
 */
export async function referredBy(layers: readonly Descriptor[], store: ImageStore): Promise<Descriptor[]> {
  const found: Descriptor[] = [];
  const places = { layers: store, data: store, cache: undefined, fetched: { requests: 0, bytes: 0 } };
  for (const layer of layers) {
    const target = turboTargetOf(layer);
    if (target === undefined) continue;
    const { lsmt, blobBytes } = await openTurboLayer(layer, target, places);
    await lsmt.close();
    found.push({ mediaType: target.mediaType ?? "application/octet-stream", digest: target.digest, size: blobBytes - layer.size });
  }
  return found;
}
