import { rmdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { attachLoop, detachLoop, loopsOf } from "../native/loop.ts";
import { mountAt, mountDevice, unmountIfMounted, type UnmountMode } from "../native/mounts.ts";
import { CONTENT_NAME } from "./fuse/fuse-server.ts";

/** Where the pieces of one mount are. */
export interface MountPlaces {
  /** The user's directory, as a real path. */
  readonly directory: string;
  /** Where the FUSE file system is mounted. */
  readonly exportDirectory: string;
}

export interface FilesystemOptions {
  readonly type: string;
  readonly options: readonly string[];
  /** Sector size of the loop device. */
  readonly sectorBytes: number;
}

/**
 * Mounts the file system in the served file on the user's directory. The loop device goes away with the mount. `signal` is aborted when
 * the connection is cut: a mount that was faster is undone, and the abort's reason thrown.
 */
export async function mountFilesystem(
  places: MountPlaces,
  { type, options, sectorBytes }: FilesystemOptions,
  signal: AbortSignal,
): Promise<void> {
  const device = await attachLoop(join(places.exportDirectory, CONTENT_NAME), sectorBytes, !options.includes("rw"));
  try {
    await mountDevice(device, places.directory, type, options);
  } finally {
    // In use, the device is only marked to be detached by whoever closes it last.
    await detachLoop(device);
  }
  if (!signal.aborted) return;
  // The file behind the loop device has lost its path, by which `dismantle` finds the mount.
  await unmountIfMounted(places.directory, "lazy");
  signal.throwIfAborted();
}

/**
 * Undoes whatever there is of a mount, in whatever state a failure, a signal or the death of its server left it:
 * file system, loop device, FUSE, and the directory that FUSE was mounted on. Idempotent.
 * With `plain` it fails, having changed nothing, while somebody uses the file system; `lazy` makes their reads fail.
 */
export async function dismantle(places: MountPlaces, mode: Exclude<UnmountMode, "forced">): Promise<void> {
  await takeFromKernel(places, mode);
  await unmountIfMounted(places.exportDirectory, "forced");
  await ifThere(rmdir(places.exportDirectory));
}

/** The first half of it, which the served file must still answer to: file system and loop device write what they have not yet written. */
export async function takeFromKernel(places: MountPlaces, mode: Exclude<UnmountMode, "forced">): Promise<void> {
  const devices = loopsOf(join(places.exportDirectory, CONTENT_NAME));
  const mounted = mountAt(places.directory);
  if (mounted !== undefined && devices.includes(mounted.source)) await unmountIfMounted(places.directory, mode);
  for (const device of devices) await detachIfAttached(device, places.exportDirectory);
}

/** Nothing was there to undo if it is not there afterwards. */
async function detachIfAttached(device: string, exportDirectory: string): Promise<void> {
  const file = join(exportDirectory, CONTENT_NAME);
  if (!loopsOf(file).includes(device)) return;
  try {
    await detachLoop(device);
  } catch (error) {
    if (loopsOf(file).includes(device)) throw error;
  }
}

/** Removes a file unless it is gone already. */
export async function unlinkIfThere(path: string): Promise<void> {
  await ifThere(unlink(path));
}

async function ifThere(removal: Promise<void>): Promise<void> {
  try {
    await removal;
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  }
}
