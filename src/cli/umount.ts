import type { Command } from "commander";
import { LazyError, messageOf } from "../errors.ts";
import { mountAt, unmount, type UnmountMode } from "../native/mounts.ts";
import { requireRoot } from "./mount.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { findRuntime, findServer, processEnds, realDirectory, removeRuntime, sendSignal } from "./mount-runtime.ts";

/** How long a server may take to end when it is asked to, and when it is made to. */
const STOP_TIMEOUT_MS = 3_000;
const KILL_TIMEOUT_MS = 5_000;

export function addUmountCommand(program: Command, environment: Pick<MountEnvironment, "stateDirectory">): void {
  program
    .command("umount")
    .summary("end a mount made by lazylayer mount")
    .description("Unmounts DIRECTORY and ends its serving process, also when that was killed before.")
    .argument("<directory>", "the directory that was given to mount")
    .option("--lazy", "also while files in it are in use; reading them fails from now on")
    .addHelpText(
      "after",
      `
Examples:
  lazylayer umount /mnt/app
  lazylayer umount --lazy /mnt/app`,
    )
    .action(async (directory: string, { lazy }: { lazy?: true }) => {
      requireRoot("umount");
      await endMount(directory, environment.stateDirectory, lazy ? "lazy" : "plain");
    });
}

/** Takes down the mount that a directory shows, and waits for its serving process to end. */
export async function endMount(
  directory: string,
  stateDirectory: string,
  mode: Exclude<UnmountMode, "forced">,
  stopTimeoutMs = STOP_TIMEOUT_MS,
): Promise<void> {
  const path = await realDirectory(directory);
  const runtime = findRuntime(stateDirectory, path);
  const mount = mountAt(path);
  if (runtime === undefined) {
    const found = mount === undefined ? "nothing is mounted there" : `${mount.type} from ${mount.source} is mounted there`;
    throw new LazyError("NOT_FOUND", `${directory}: is no mount of lazylayer, ${found}`);
  }
  if (mount !== undefined) await unmountFilesystem(path, mode);
  const server = findServer(runtime);
  if (server !== undefined) await endServer(server, stopTimeoutMs);
  await removeRuntime(runtime, mode);
}

async function unmountFilesystem(path: string, mode: Exclude<UnmountMode, "forced">): Promise<void> {
  try {
    await unmount(path, mode);
  } catch (cause) {
    const busy = mode === "plain" && /busy/.test(messageOf(cause));
    throw busy ? new LazyError("UNAVAILABLE", `${path}: files in it are in use; end what uses them, or use --lazy`, { cause }) : cause;
  }
}

async function endServer(pid: number, stopTimeoutMs: number): Promise<void> {
  sendSignal(pid, "SIGTERM");
  if (await processEnds(pid, stopTimeoutMs)) return;
  sendSignal(pid, "SIGKILL");
  if (await processEnds(pid, KILL_TIMEOUT_MS)) return;
  throw new LazyError("UNAVAILABLE", `serving process ${pid} does not end, although it was killed; the kernel holds it`);
}
