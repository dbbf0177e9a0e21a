import { stat } from "node:fs/promises";
import { LazyError, unsupported } from "../errors.ts";
import { MAX_STACK_LAYERS } from "../formats/lsmt/layout.ts";
import type { WritableStack } from "../formats/lsmt/writable-stack.ts";
import type { BlobPlace } from "./blob-place.ts";
import { Device } from "./device.ts";
import { openLower } from "./image-config-lower.ts";
import type { ImagePlaces, OpeningPlaces } from "./image-config-places.ts";
import { EMPTY_REPOSITORY, ImageOpenError, remoteReason, writeResult } from "./image-config-result.ts";
import type { ImageConfig, LowerConfig } from "./image-config-schema.ts";
import type { DownloadableLayer } from "./layer-downloads.ts";
import type { DeviceLayer } from "./layer-file.ts";
import { openLayers } from "./native-layer.ts";
import { ProgramReads } from "./prefetch-reads.ts";

/** An image that an image configuration describes. Closing its device closes the layers. */
export type OpenedImage = ReadOnlyImage | WritableImage;

export interface ReadOnlyImage extends ImageLayers {
  readonly isReadOnly: true;
  readonly device: Device;
  readonly lowers: Device;
  readonly reads: ProgramReads;
}

/** An image with an upper layer, which takes what is written. */
export interface WritableImage extends ImageLayers {
  readonly isReadOnly: false;
  readonly device: WritableStack;
}

interface ImageLayers {
  /** What is below the upper layer, or all of the device where there is none. */
  readonly lowers: Device | undefined;
  /** The lowers as users of the device read them. Whoever shows a read-only image has to read through it. */
  readonly reads: ProgramReads | undefined;
  /** Reads that were recorded and are to be replayed, or a file that they are to be recorded in. */
  readonly trace: ImageTrace | undefined;
  /** Layers that are remote, and have directories where they can be. */
  readonly downloadable: readonly DownloadableLayer[];
}

export interface ImageTrace {
  readonly path: string;
  readonly mode: "record" | "replay";
}

/**
 * Opens the layers of an image configuration as one device, and writes its result file, once, however it goes. Closing the device
 * closes the layers.
 * Throws `ImageOpenError`, with the code of what went wrong, and a message that names the key at fault.
 */
export async function openImageConfig(config: ImageConfig, places: ImagePlaces): Promise<OpenedImage> {
  try {
    const image = await openImage(config, places);
    await writeResult(config.resultFile, undefined, places.notice);
    return image;
  } catch (error) {
    await writeResult(config.resultFile, error, places.notice);
    throw error;
  }
}

async function openImage(config: ImageConfig, places: ImagePlaces): Promise<OpenedImage> {
  const trace = await traceOf(config);
  const lowers = lowersOf(config);
  const isReadOnly = !hasUpper(config.upper);
  checkLayers(lowers, isReadOnly);
  const opening = openingPlaces(config, places);
  const layers = await openLayers(lowers, async (lower, index) => await openLower(lower, index, opening));
  const rest = { trace, downloadable: layers.flatMap(({ downloadable }) => downloadable ?? []) };
  if (isReadOnly) {
    const device = await stacked(layers, opening);
    return { isReadOnly, device, lowers: device, reads: new ProgramReads(device), ...rest };
  }
  const below = layers.length === 0 ? undefined : await stacked(layers, opening);
  const reads = below && new ProgramReads(below);
  try {
    return { isReadOnly, device: await openOver(reads, config, places), lowers: below, reads, ...rest };
  } catch (error) {
    await below?.close();
    throw new ImageOpenError("", "upper", error); // result files have no words for it
  }
}

/** Without both files an image is read-only. */
export function hasUpper({ data, index }: ImageConfig["upper"]): boolean {
  return data !== "" && index !== "";
}

async function openOver(below: ProgramReads | undefined, { upper: config }: ImageConfig, places: ImagePlaces): Promise<WritableStack> {
  // Most images are only read, and what writes takes memory.
  const { openUpper } = await import("./image-config-upper.ts");
  const { openWritableStack } = await import("../formats/lsmt/writable-stack.ts");
  await places.claimUpper?.(config.data);
  const upper = await openUpper(config, places);
  try {
    return await openWritableStack(below, upper);
  } catch (error) {
    await upper.close();
    throw error;
  }
}

async function stacked(layers: readonly DeviceLayer[], { fetched }: OpeningPlaces): Promise<Device> {
  try {
    return new Device(layers, fetched);
  } catch (error) {
    await Promise.all(layers.map(async ({ lsmt }) => await lsmt.close()));
    throw new ImageOpenError("failed to create overlaybd device", "lowers", error);
  }
}

/** The layers that a device is made of, below the one that is written to: an acceleration layer on top of them is none. */
export function lowersOf({ lowers, accelerationLayer }: ImageConfig): readonly LowerConfig[] {
  return accelerationLayer ? lowers.slice(0, -1) : lowers;
}

/** A layer of its own may hold the recorded reads; it holds nothing of the device. */
async function traceOf(config: ImageConfig): Promise<ImageTrace | undefined> {
  const { lowers, accelerationLayer, recordTracePath } = config;
  if (accelerationLayer && recordTracePath !== "") {
    const both = new LazyError("USAGE", `is ${JSON.stringify(recordTracePath)}, but accelerationLayer is true: one of them has to go`);
    throw new ImageOpenError("failed to create overlaybd device", "recordTracePath", both);
  }
  const top = lowers.at(-1);
  if (accelerationLayer && top !== undefined) {
    const path = `${top.dir}/trace`;
    const bytes = top.dir === "" ? undefined : await fileBytes(path);
    return bytes ? { path, mode: "replay" } : undefined;
  }
  const bytes = recordTracePath === "" ? undefined : await fileBytes(recordTracePath);
  return bytes === undefined ? undefined : { path: recordTracePath, mode: bytes === 0 ? "record" : "replay" };
}

/** Undefined for what is not there, or cannot be looked at: reads of it are an improvement, not a need. */
async function fileBytes(path: string): Promise<number | undefined> {
  return await stat(path).then(
    (found) => (found.isFile() ? found.size : undefined),
    () => undefined,
  );
}

function checkLayers(lowers: readonly LowerConfig[], needsOne: boolean): void {
  if ((lowers.length > 0 || !needsOne) && lowers.length <= MAX_STACK_LAYERS) return;
  const error =
    lowers.length === 0
      ? new LazyError("USAGE", "is empty, and there is no upper with data and index: expected at least one layer")
      : unsupported(`has ${lowers.length} layers, expected at most ${MAX_STACK_LAYERS}; merge some of them`);
  throw new ImageOpenError("failed to create overlaybd device", "lowers", error);
}

function openingPlaces({ repoBlobUrl }: ImageConfig, places: ImagePlaces): OpeningPlaces {
  let remote: Promise<BlobPlace> | undefined;
  const open = async (): Promise<BlobPlace> => {
    if (repoBlobUrl !== "") return await openRemote(repoBlobUrl, places);
    const missing = new LazyError("USAGE", "is empty, and a layer is not in a local file: name the repository that has it");
    throw new ImageOpenError(EMPTY_REPOSITORY, "repoBlobUrl", missing);
  };
  return {
    ...places,
    repoBlobUrl: repoBlobUrl.replace(/\/$/, ""),
    remote: async () => await (remote ??= open()),
    fetched: { requests: 0, bytes: 0 },
  };
}

async function openRemote(repoBlobUrl: string, places: ImagePlaces): Promise<BlobPlace> {
  try {
    return await places.openRemote(repoBlobUrl);
  } catch (error) {
    throw new ImageOpenError(`failed to open remote file /${repoBlobUrl}: ${remoteReason(error)}`, "repoBlobUrl", error);
  }
}
