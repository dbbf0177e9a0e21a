import { mkdir, rmdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { attachLoop, detachLoop, loopsOf } from "../native/loop.ts";
import { mountAt, mountDevice, unmountIfMounted, type UnmountMode } from "../native/mounts.ts";
import { CONTENT_NAME } from "./fuse/fuse-server.ts";
import { coverWithOverlay, uncover, type OverlayPlaces } from "./overlay.ts";

/** Where the pieces of one mount are. */
export interface MountPlaces {
  /** The user's directory, as a real path. */
  readonly directory: string;
  /** Where the FUSE file system is mounted. */
  readonly exportDirectory: string;
  /** A writable layer over the file system; without one the user's directory has the file system itself. */
  readonly overlay?: OverlayPlaces | undefined;
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
  const { overlay } = places;
  if (overlay !== undefined) await mkdir(overlay.lowerDirectory, { recursive: true, mode: 0o700 });
  const device = await attachLoop(join(places.exportDirectory, CONTENT_NAME), sectorBytes, !options.includes("rw"));
  const directory = filesystemDirectory(places);
  try {
    await mountDevice(device, directory, type, options);
  } finally {
    // In use, the device is only marked to be detached by whoever closes it last.
    await detachLoop(device);
  }
  try {
    signal.throwIfAborted();
    if (overlay !== undefined) await coverWithOverlay(places.directory, overlay);
    signal.throwIfAborted();
  } catch (error) {
    // Where the connection was cut, the file behind the loop device has lost its path, by which `dismantle` finds the mount.
    if (overlay !== undefined) await uncover(places.directory, overlay, "lazy");
    await unmountIfMounted(directory, "lazy");
    throw error;
  }
}

/** Where the file system itself is mounted. */
function filesystemDirectory({ directory, overlay }: MountPlaces): string {
  return overlay?.lowerDirectory ?? directory;
}

/**
 * Undoes whatever there is of a mount, in whatever state a failure, a signal or the death of its server left it:
 * overlay, file system, loop device, FUSE, and the directories that were made for them. What was written through an overlay stays.
 * Idempotent.
 * With `plain` it fails, having changed nothing, while somebody uses the file system; `lazy` makes their reads fail.
 */
export async function dismantle(places: MountPlaces, mode: Exclude<UnmountMode, "forced">): Promise<void> {
  await takeFromKernel(places, mode);
  await unmountIfMounted(places.exportDirectory, "forced");
  await ifThere(rmdir(places.exportDirectory));
  if (places.overlay !== undefined) await ifThere(rmdir(places.overlay.lowerDirectory));
}

/** The first half of it, which the served file must still answer to: file system and loop device write what they have not yet written. */
export async function takeFromKernel(places: MountPlaces, mode: Exclude<UnmountMode, "forced">): Promise<void> {
  if (places.overlay !== undefined) await uncover(places.directory, places.overlay, mode);
  const devices = loopsOf(join(places.exportDirectory, CONTENT_NAME));
  const directory = filesystemDirectory(places);
  const mounted = mountAt(directory);
  if (mounted !== undefined && devices.includes(mounted.source)) await unmountIfMounted(directory, mode);
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
