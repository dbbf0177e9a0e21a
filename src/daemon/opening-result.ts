import { resolve } from "node:path";
import { ImageOpenError, writeResult } from "../device/image-config-result.ts";
import type { ImageConfig } from "../device/image-config-schema.ts";
import { LazyError } from "../errors.ts";
import type { Log } from "./log/log.ts";

/** The id is another device's. */
export class DuplicateDeviceError extends LazyError {
  constructor(id: string) {
    super("USAGE", `duplicated dev id: ${id}`);
    this.name = "DuplicateDeviceError";
  }
}

/**
 * Does a part of what has to be done before an image can be opened. Throws what that throws; whoever waits for the image's result file
 * hears of it there, as opening the image itself would say it.
 */
export async function beforeOpening<T>({ resultFile }: ImageConfig, log: Log, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // Other failures before the image is open have no words of their own.
    const reason = error instanceof DuplicateDeviceError ? error.message : "failed to create overlaybd device";
    // Relative paths begin where device processes work.
    const path = resultFile === "" ? "" : resolve("/", resultFile);
    await writeResult(path, new ImageOpenError(reason, "device", error), (message) => log("warn", message));
    throw error;
  }
}
