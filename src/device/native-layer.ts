import type { ByteSource } from "../bytes/source.ts";
import { CachedSource } from "../cache/cached-source.ts";
import { areBlocksRight } from "../formats/zfile/zfile-reader.ts";
import { distrust, fileInBlob, type DeviceLayer } from "./layer-file.ts";
import { openOverlaybdLayer, type OpenLayerOptions } from "./layer.ts";
import { retryingCorrupt } from "./retry-corrupt.ts";

/** Layers that are opened at the same time: as many as there are connections to a registry. */
const MAX_OPENING = 16;

/**
 * Opens a layer that has all of its data in one blob. What was kept or sent of it is fetched once more if it is wrong.
 * When opening fails, the source stays open.
 */
export async function openNativeLayer(source: ByteSource, options: OpenLayerOptions): Promise<DeviceLayer> {
  const opened = await retryingCorrupt(
    async () => await openOverlaybdLayer(source, options),
    () => discardAll(source),
  );
  const { blocks, payloadOffset } = opened;
  if (source instanceof CachedSource && blocks !== undefined) {
    source.keepOnly((offset, bytes) => areBlocksRight(blocks, offset - payloadOffset, bytes));
  }
  return { lsmt: opened.lsmt, files: [fileInBlob(source, opened, opened.reader)], blobBytes: source.size };
}

function discardAll(source: ByteSource): boolean {
  if (!(source instanceof CachedSource)) return distrust(source);
  source.discard(0, source.size);
  return true;
}

/** Opens layers in their order, some at a time; when one fails, closes those that were opened. */
export async function openLayers<T>(items: readonly T[], open: (item: T, index: number) => Promise<DeviceLayer>): Promise<DeviceLayer[]> {
  const layers: DeviceLayer[] = [];
  for (let first = 0; first < items.length; first += MAX_OPENING) {
    const opening = items.slice(first, first + MAX_OPENING).map(async (item, at) => await open(item, first + at));
    const results = await Promise.allSettled(opening);
    for (const result of results) if (result.status === "fulfilled") layers.push(result.value);
    const failure = results.find((result) => result.status === "rejected");
    if (failure === undefined) continue;
    await Promise.all(layers.map(async ({ lsmt }) => await lsmt.close()));
    throw failure.reason;
  }
  return layers;
}
