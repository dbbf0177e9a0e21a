import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { realpath, rmdir } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LazyError, messageOf } from "../errors.ts";
import { CONTENT_NAME } from "../export/fuse/fuse-server.ts";
import { dismantle, unlinkIfThere, type MountPlaces } from "../export/filesystem.ts";
import { backingFileOf } from "../native/loop.ts";
import { mountAt } from "../native/mounts.ts";
import { SERVE_COMMAND } from "./mount-request.ts";

const EXPORT_NAME = "export";
const LOWER_NAME = "lower";
const RECORD_NAME = "directory";
const OVERLAY_RECORD_NAME = "overlay";
export const LOG_NAME = "log";

const POLL_MS = 20;

/** The directory of one mount below the state directory, and what belongs to it. */
export interface MountRuntime extends MountPlaces {
  readonly runtimeDirectory: string;
}

/** Makes the directory of a new mount: the mount point of FUSE, and a record of the user's directories. */
export function createRuntime(stateDirectory: string, directory: string, scratchDirectory: string | undefined): MountRuntime {
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
  // Loop devices tell the real path of their file; the mount is found by it.
  const runtime = runtimeAt(mkdtempSync(join(realpathSync(stateDirectory), "mount-")), directory, scratchDirectory);
  mkdirSync(runtime.exportDirectory, { mode: 0o700 });
  if (scratchDirectory !== undefined) writeFileSync(join(runtime.runtimeDirectory, OVERLAY_RECORD_NAME), scratchDirectory);
  writeFileSync(join(runtime.runtimeDirectory, RECORD_NAME), directory);
  return runtime;
}

/** With a scratch directory, what is written to the mount goes there. */
export function runtimeAt(runtimeDirectory: string, directory: string, scratchDirectory: string | undefined): MountRuntime {
  const overlay = scratchDirectory === undefined ? undefined : { lowerDirectory: join(runtimeDirectory, LOWER_NAME), scratchDirectory };
  return { runtimeDirectory, directory, exportDirectory: join(runtimeDirectory, EXPORT_NAME), overlay };
}

/**
 * The mount that a directory shows: known by the file behind its loop device, or the source of its overlay, or, once that is gone, by
 * what was recorded. Undefined when it is none of ours.
 */
export function findRuntime(stateDirectory: string, directory: string): MountRuntime | undefined {
  const mount = mountAt(directory);
  const file = mount === undefined ? undefined : backingFileOf(mount.source);
  const runtimes = listRuntimes(stateDirectory);
  return (
    runtimes.find(({ exportDirectory }) => file === join(exportDirectory, CONTENT_NAME)) ??
    runtimes.find(({ overlay }) => mount?.type === "overlay" && mount.source === overlay?.lowerDirectory) ??
    (file === undefined ? runtimes.find((runtime) => runtime.directory === directory) : undefined)
  );
}

function listRuntimes(stateDirectory: string): MountRuntime[] {
  const names = readdirIfThere(stateDirectory);
  if (names.length === 0) return [];
  const realStateDirectory = realpathSync(stateDirectory);
  return names
    .map((name) => join(realStateDirectory, name))
    .map((path) => runtimeAt(path, readIfThere(join(path, RECORD_NAME)) ?? "", readIfThere(join(path, OVERLAY_RECORD_NAME))));
}

/** Undoes a mount whose server has ended, or never started, and removes its directory. Idempotent. */
export async function removeRuntime(runtime: MountRuntime, mode: "plain" | "lazy"): Promise<void> {
  await dismantle(runtime, mode);
  for (const name of [LOG_NAME, OVERLAY_RECORD_NAME, RECORD_NAME]) await unlinkIfThere(join(runtime.runtimeDirectory, name));
  await rmdirIfThere(runtime.runtimeDirectory);
}

/** The process that serves a mount, told by its command line. */
export function findServer({ runtimeDirectory }: MountRuntime): number | undefined {
  const found = readdirSync("/proc").find((name) => {
    if (!/^\d+$/.test(name)) return false;
    const args = readIfThere(`/proc/${name}/cmdline`)?.split("\0") ?? [];
    const at = args.indexOf(SERVE_COMMAND);
    return at > 0 && args[at + 1] === runtimeDirectory;
  });
  return found === undefined ? undefined : Number(found);
}

/** Waits for a process to end; false when the time is over first. */
export async function processEnds(pid: number, timeoutMs: number): Promise<boolean> {
  for (let waitedMs = 0; isAlive(pid); waitedMs += POLL_MS) {
    if (waitedMs >= timeoutMs) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/** A zombie has ended, although its parent has not looked yet. */
function isAlive(pid: number): boolean {
  const state = readIfThere(`/proc/${pid}/stat`)?.replace(/^.*\) /s, "")[0];
  return state !== undefined && state !== "Z" && state !== "X";
}

export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/** The real path of a directory that may be a mount point, without asking the file system that is mounted there. */
export async function realDirectory(directory: string): Promise<string> {
  const path = resolve(directory);
  if (mountAt(path) !== undefined) return path;
  try {
    const throughParent = join(await realpath(dirname(path)), basename(path));
    return mountAt(throughParent) === undefined ? await realpath(path) : throughParent;
  } catch (cause) {
    throw new LazyError("NOT_FOUND", `${directory}: ${messageOf(cause)}`, { cause });
  }
}

async function rmdirIfThere(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function readdirIfThere(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/** Files of a process answer ESRCH when it ends while they are read; a name that is no directory has nothing in it. */
function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && ["ENOENT", "ESRCH", "ENOTDIR"].includes(String(error.code));
}
