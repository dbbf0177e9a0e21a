import { spawn, type ChildProcess } from "node:child_process";
import { copyFile, mkdir, mkdtemp, rm, rmdir } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { writeTrace } from "../device/prefetch-file.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { Environment } from "./environment.ts";
import { byteText } from "./progress/byte-text.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { mountRequest, requireRoot, startServing, type MountOptions } from "./mount.ts";
import { checkWritable, readTrace } from "./trace-file.ts";
import { endMount } from "./umount.ts";

/** How long a command that was told to end may take before it is killed. */
const KILL_AFTER_MS = 10_000;
/** How long the serving process may take to write what it recorded. */
const WRITE_TIMEOUT_MS = 60_000;

export interface RecordOptions extends MountOptions {
  readonly output: string;
  readonly chroot?: true;
  readonly times?: string;
  /** In seconds. */
  readonly time?: number;
}

/** Records what a command reads of an image; returns the command's status. Nothing stays mounted, whatever happens. */
export async function recordTrace(
  image: string,
  command: readonly string[],
  { output, chroot, time, times, ...options }: RecordOptions,
  environment: Environment,
  mounts: MountEnvironment,
): Promise<number> {
  requireRoot("trace record");
  const target = await checkWritable(output);
  const timesTarget = times === undefined ? undefined : await checkWritable(times);
  const scratch = await mkdtemp(join(environment.temporaryDirectory, "lazylayer-trace-"));
  const directory = join(scratch, "image");
  const recording = join(scratch, "trace");
  const recordTimes = join(scratch, "times");
  try {
    await mkdir(directory);
    await startServing({ ...(await mountRequest(image, directory, options, mounts)), recordTrace: recording, recordTimes }, mounts);
    let status: number;
    try {
      status = await runCommand(chroot ? ["chroot", directory, ...command] : command, directory, time, environment);
    } finally {
      await endMount(directory, mounts.stateDirectory, "lazy", WRITE_TIMEOUT_MS);
    }
    const records = await readTrace(recording);
    await writeTrace(target, records);
    if (timesTarget !== undefined) await copyFile(recordTimes, timesTarget);
    const bytes = records.reduce((sum, { length }) => sum + length, 0);
    environment.stderr.write(
      `${output}: ${records.length} reads of ${byteText(bytes)}${status === 0 ? "" : `; the command's status is ${status}`}\n`,
    );
    environment.signal.throwIfAborted();
    return status;
  } finally {
    await removeScratch(scratch, [recordTimes, recording, `${recording}.ok`, `${recording}.lock`], [directory, scratch]);
  }
}

/** Only what is known to be there: an image that could not be unmounted must not be emptied. */
async function removeScratch(scratch: string, files: readonly string[], directories: readonly string[]): Promise<void> {
  try {
    for (const file of files) await rm(file, { force: true });
    for (const directory of directories) await rmdir(directory);
  } catch (cause) {
    throw new LazyError("UNAVAILABLE", `${scratch}: cannot be removed: ${messageOf(cause)}`, { cause });
  }
}

/** Runs a command to its end, or to the time when it is told to end; that counts as success. */
async function runCommand(
  [program, ...args]: readonly string[],
  directory: string,
  seconds: number | undefined,
  { signal, variables }: Environment,
): Promise<number> {
  signal.throwIfAborted();
  const child = spawn(program, args, { cwd: directory, env: variables, stdio: "inherit" });
  let isTimeOver = false;
  let killer: NodeJS.Timeout | undefined;
  const end = (): void => {
    child.kill("SIGTERM");
    killer ??= setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS);
  };
  const onTime = (): void => {
    isTimeOver = true;
    end();
  };
  const timer = seconds === undefined ? undefined : setTimeout(onTime, seconds * 1000);
  signal.addEventListener("abort", end);
  try {
    const status = await endOf(child, program);
    return isTimeOver ? 0 : status;
  } finally {
    clearTimeout(timer);
    clearTimeout(killer);
    signal.removeEventListener("abort", end);
  }
}

async function endOf(child: ChildProcess, program: string): Promise<number> {
  const end = Promise.withResolvers<number>();
  child.once("error", (cause) => end.reject(new LazyError("USAGE", `${program}: cannot be run: ${cause.message}`, { cause })));
  child.once("exit", (code, by) => end.resolve(code ?? 128 + (by === null ? 0 : constants.signals[by])));
  return await end.promise;
}
