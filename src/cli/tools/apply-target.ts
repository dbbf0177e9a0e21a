import type { BlockDevice } from "../../bytes/block-device.ts";
import type { Environment } from "../environment.ts";
import { openWritableImage, type ImageOptions } from "./image-layers.ts";
import { RawDevice } from "./raw-device.ts";

/** What a layer is applied to. */
export interface ApplyTarget {
  readonly device: BlockDevice;
  /** Makes all of the device zeros. */
  readonly clear: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** A file whose bytes are the device's. */
export async function openRawTarget(path: string): Promise<ApplyTarget> {
  const device = await RawDevice.open(path);
  return { device, clear: async () => await device.clear(), close: async () => await device.close() };
}

/** The device of an image with a writable layer. */
export async function openImageTarget(options: ImageOptions, environment: Environment): Promise<ApplyTarget> {
  const { device, close } = await openWritableImage(options, environment);
  return { device, clear: async () => await device.discard(0, device.size), close };
}
