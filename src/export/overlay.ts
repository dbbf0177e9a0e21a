import { chmod, chown, mkdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { LazyError, messageOf } from "../errors.ts";
import { mountAt, mountDevice, unmountIfMounted, type UnmountMode } from "../native/mounts.ts";

/** Where the pieces of a writable layer over a mounted file system are. */
export interface OverlayPlaces {
  /** Where the file system is mounted until the overlay has a hold of it. The overlay is known by this path, which is its source. */
  readonly lowerDirectory: string;
  /** The user's; what is written goes to `upper` in there, and stays. Made if it is missing. */
  readonly scratchDirectory: string;
}

/** They separate options of mounts and directories of overlayfs, and libmount and kernels do not agree on how to escape them. */
const SEPARATORS = /[,:\\"]/;

/**
 * With it the kernel refuses a scratch directory that another overlay uses, or that has the changes of another file system: without, it
 * would go on and say that the behaviour is undefined.
 */
const INDEX = "index=on";

/** What the kernel means by its errors, as mount(8) tells them. */
const REASONS: readonly (readonly [complaint: RegExp, code: "USAGE" | "UNAVAILABLE", reason: string])[] = [
  [/already mounted|busy/i, "UNAVAILABLE", "another overlay uses it, or files of an earlier one are still open; end what uses them"],
  [/stale file handle/i, "USAGE", "it has the changes of another image; name another directory"],
  [
    /wrong fs type|bad option|invalid argument|read-only/i,
    "USAGE",
    "its file system cannot take an overlay's changes; name a directory on ext4, XFS, Btrfs or tmpfs (the kernel's log says more)",
  ],
];

/**
 * Mounts, on `directory`, what is mounted on the lower directory with a writable layer over it. Nothing is mounted on the lower directory
 * any more then: the overlay alone holds the file system, which ends with it.
 * Throws `USAGE` when overlayfs cannot use the scratch directory, and `UNAVAILABLE` while another overlay does.
 */
export async function coverWithOverlay(directory: string, { lowerDirectory, scratchDirectory }: OverlayPlaces): Promise<void> {
  for (const path of [lowerDirectory, scratchDirectory]) {
    if (SEPARATORS.test(path)) {
      throw new LazyError("USAGE", `overlay: ${path}: overlayfs takes no path with a comma, a colon, a quote or a backslash in it`);
    }
  }
  const upper = join(scratchDirectory, "upper");
  const work = join(scratchDirectory, "work");
  try {
    await makeScratch({ scratchDirectory, upper, work }, lowerDirectory);
  } catch (cause) {
    throw new LazyError("USAGE", `overlay: ${messageOf(cause)}`, { cause });
  }
  try {
    const layers = [`lowerdir=${lowerDirectory}`, `upperdir=${upper}`, `workdir=${work}`];
    await mountDevice(lowerDirectory, directory, "overlay", ["rw", "nosuid", "nodev", INDEX, ...layers]);
  } catch (cause) {
    const [, code, reason] = REASONS.find(([complaint]) => complaint.test(messageOf(cause))) ?? [];
    throw new LazyError(
      code ?? "UNAVAILABLE",
      `overlay: ${scratchDirectory}: ${reason === undefined ? "" : `${reason}: `}${messageOf(cause)}`,
      {
        cause,
      },
    );
  }
  await unmountIfMounted(lowerDirectory, "lazy");
}

/** Unmounts the overlay, if it is there, and if it is that one. */
export async function uncover(directory: string, { lowerDirectory }: OverlayPlaces, mode: UnmountMode): Promise<void> {
  const mounted = mountAt(directory);
  if (mounted?.type === "overlay" && mounted.source === lowerDirectory) await unmountIfMounted(directory, mode);
}

interface Scratch {
  readonly scratchDirectory: string;
  readonly upper: string;
  readonly work: string;
}

/** The overlay's root has the owner, mode and times of the upper directory, so that one gets those of the image's. */
async function makeScratch({ scratchDirectory, upper, work }: Scratch, lowerDirectory: string): Promise<void> {
  for (const directory of [scratchDirectory, work]) await makeIfMissing(directory);
  if (await isThere(upper)) return;
  const { uid, gid, mode, atime, mtime } = await stat(lowerDirectory);
  const fresh = `${upper}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { mode: 0o700 });
  await chown(fresh, uid, gid);
  await chmod(fresh, mode & 0o7777);
  await utimes(fresh, atime, mtime);
  await rename(fresh, upper);
}

async function makeIfMissing(directory: string): Promise<void> {
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    if (!isCode(error, "EEXIST")) throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isCode(error, "ENOENT")) return false;
    throw error;
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
