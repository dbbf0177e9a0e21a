import type { BlockCache } from "../cache/block-cache.ts";
import { unsupported } from "../errors.ts";
import { MAX_STACK_LAYERS } from "../formats/lsmt/layout.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Manifest } from "../oci/manifest.ts";
import { isConvertedLayer } from "../oci/overlaybd-layer.ts";
import type { BlobPlace, LayerPlaces } from "./blob-place.ts";
import { CountedSource, type FetchCounts } from "./counted-source.ts";
import { Device } from "./device.ts";
import type { DeviceLayer } from "./layer-file.ts";
import { openLayers, openNativeLayer } from "./native-layer.ts";
import { splitAcceleration } from "./prefetch-acceleration.ts";
import { turboTargetOf } from "./turbo-annotations.ts";
import { openTurboLayer } from "./turbo-layer.ts";

export interface OpenDeviceOptions {
  /** Keeps what is read of the layers on disk; without it they are read from their place every time. */
  readonly cache?: BlockCache | undefined;
  /** Has the blobs that turboOCI layers were made from; by default the place of the layers themselves. */
  readonly dataPlace?: BlobPlace | undefined;
}

/**
 * Opens all layers of an overlaybd or turboOCI image, or of one that has both kinds, as one block device. Closing it closes the
 * layers, not the places. Throws `UNSUPPORTED` for images that are neither, `NOT_FOUND` when the data of a layer is not where it
 * should be.
 */
export async function openDevice(store: BlobPlace, manifest: Pick<Manifest, "layers">, options: OpenDeviceOptions = {}): Promise<Device> {
  const { lowers, acceleration } = splitAcceleration(manifest.layers);
  if (lowers.length === 0) throw unsupported(`${store.name}: the image has no layers`);
  if (lowers.length > MAX_STACK_LAYERS) {
    throw unsupported(`${store.name}: the image has ${lowers.length} layers, expected at most ${MAX_STACK_LAYERS}`);
  }
  const fetched: FetchCounts = { requests: 0, bytes: 0 };
  const places: LayerPlaces = { layers: store, data: options.dataPlace ?? store, cache: options.cache, fetched };
  const layers = await openLayers(lowers, async (descriptor) => {
    const target = turboTargetOf(descriptor);
    return target === undefined ? await openBlobLayer(descriptor, places) : await openTurboLayer(descriptor, target, places);
  });
  return new Device(layers, fetched, acceleration);
}

/** A layer that has all of its data in its own blob. */
async function openBlobLayer(descriptor: Descriptor, { layers, cache, fetched }: LayerPlaces): Promise<DeviceLayer> {
  const counted = new CountedSource(await layers.blobSource(descriptor), fetched);
  const source = cache === undefined ? counted : cache.source(descriptor.digest, counted);
  try {
    return await openNativeLayer(source, { declared: isConvertedLayer(descriptor), keepPinned: cache === undefined });
  } catch (error) {
    await source.close();
    throw error;
  }
}
