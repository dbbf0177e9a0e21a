import { turboTargetOf } from "../device/turbo-annotations.ts";
import { LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";

/** The layers that an image's turboOCI layers refer to. Throws `NOT_FOUND` when one of them is not in the store. */
export async function referredBy(layers: readonly Descriptor[], store: ImageStore): Promise<Descriptor[]> {
  const found: Descriptor[] = [];
  for (const layer of layers) {
    const target = turboTargetOf(layer);
    if (target === undefined) continue;
    const { digest, mediaType = "application/octet-stream" } = target;
    const size = await store.blobSize(digest);
    if (size === undefined)
      throw new LazyError("NOT_FOUND", `${store.name}: layer ${layer.digest} refers to blob ${digest}, which is not there`);
    found.push({ mediaType, digest, size });
  }
  return found;
}
