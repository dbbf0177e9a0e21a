import { constants, readFileSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";

const O_RDONLY_EXCLUSIVE = constants.O_RDONLY | constants.O_EXCL;

/** What the kernel says of a block device, such as `pid` of /dev/nbd0; undefined while it does not say that. */
export function blockAttribute(device: string, attribute: string): string | undefined {
  try {
    return readFileSync(`${device.replace("/dev/", "/sys/block/")}/${attribute}`, "utf8").replace(/\n$/, "");
  } catch (error) {
    // The attribute exists while something is attached, and reading it races with the detaching.
    if (error instanceof Error && "code" in error && ["ENOENT", "ENODEV", "ENXIO"].includes(String(error.code))) return undefined;
    throw error;
  }
}

/**
 * Opens a block device that nobody can mount until it is closed. Fails with `EBUSY` where it is mounted or used by another driver. In
 * another thread: opening may read the device, which this process may serve.
 */
export async function openExclusively(device: string): Promise<FileHandle> {
  return await open(device, O_RDONLY_EXCLUSIVE);
}
