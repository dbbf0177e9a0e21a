import type { OpenedImage } from "../device/image-config.ts";
import type { ImagePlaces } from "../device/image-config-places.ts";
import type { LayerDownloads } from "../device/layer-downloads.ts";
import type { ServiceConfig } from "./config/service-config.ts";
import { lockPath } from "./process-lock.ts";

/** Where a configuration says none. */
const DEFAULT_DELAY_EXTRA_SECONDS = 30;

/**
 * Begins to download the layers of an image to their directories; undefined when none is to be. While reads are recorded nothing is
 * downloaded besides.
 */
export async function openDownloads(
  { downloadable, trace }: OpenedImage,
  settings: ServiceConfig["download"],
  places: ImagePlaces,
): Promise<LayerDownloads | undefined> {
  if (!settings.enable || downloadable.length === 0 || trace?.mode === "record") return undefined;
  const { LayerDownloads } = await import("../device/layer-downloads.ts");
  const extraSeconds = Math.random() * (settings.delayExtra > 0 ? settings.delayExtra : DEFAULT_DELAY_EXTRA_SECONDS);
  return new LayerDownloads(downloadable, settings, {
    delayMs: (settings.delay + extraSeconds) * 1000,
    lock: async (directory) => await lockPath("download", directory),
    findDataExtents: places.findDataExtents,
    notice: places.notice,
  });
}
