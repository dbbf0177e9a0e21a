import { BlockCache } from "../../cache/block-cache.ts";
import type { ImagePlaces } from "../../device/image-config-places.ts";
import type { LayerCaches } from "../../device/layer-caches.ts";
import { messageOf } from "../../errors.ts";
import type { ServiceConfig } from "./service-config.ts";
import type { ServiceMachine, ServiceRegistries } from "./service-registries.ts";

/** What images are opened from; closed after the last of them. */
export interface ServicePlaces extends ImagePlaces {
  close(): Promise<void>;
}

const GIB = 2 ** 30;

/**
 * Opens the caches of a service's configuration; what it takes to reach registries is brought when an image names one, as it takes much
 * memory. Throws what the caches' directories do, and what is wrong with a client's certificate.
 */
export async function openServicePlaces(config: ServiceConfig, machine: ServiceMachine): Promise<ServicePlaces> {
  const { cacheConfig, gzipCacheConfig, certConfig } = config;
  const { notice } = machine;
  let opening: Promise<ServiceRegistries> | undefined;
  const registries = async (): Promise<ServiceRegistries> => {
    opening ??= openRegistries(config, machine);
    opening.catch(() => (opening = undefined));
    return await opening;
  };
  if (certConfig.certFile !== "") await registries();
  const layerCaches = cacheConfig.cacheType === "download" ? await openLayerCaches(cacheConfig.refillSize, notice) : undefined;
  return {
    openRemote: async (repoBlobUrl) => await (await registries()).open(repoBlobUrl),
    cache: layerCaches === undefined ? await openCache(cacheConfig, machine) : undefined,
    layerCaches,
    gzipCache: gzipCacheConfig.enable ? await openCache(gzipCacheConfig, machine) : undefined,
    findDataExtents: machine.findDataExtents,
    notice,
    close: async () => {
      await (await opening)?.close();
      await layerCaches?.close();
    },
  };
}

async function openRegistries(config: ServiceConfig, machine: ServiceMachine): Promise<ServiceRegistries> {
  const { openServiceRegistries } = await import("./service-registries.ts");
  return await openServiceRegistries(config, machine);
}

async function openLayerCaches(refillSize: number, notice: (message: string) => void): Promise<LayerCaches> {
  const { LayerCaches } = await import("../../device/layer-caches.ts");
  return new LayerCaches(refillSize, notice);
}

type CacheSizes = Pick<ServiceConfig["cacheConfig"], "cacheDir" | "cacheSizeGB" | "refillSize">;

async function openCache({ cacheDir, cacheSizeGB, refillSize }: CacheSizes, { notice, onEviction }: ServiceMachine): Promise<BlockCache> {
  return await BlockCache.open(cacheDir, {
    capacityBytes: cacheSizeGB * GIB,
    chunkBytes: refillSize,
    onDiskFailure: (error) => notice(`${cacheDir}: ${messageOf(error)}; what is not kept there is read from its place`),
    onEviction,
  });
}
