import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { InvalidArgumentError, Option, type Command } from "commander";
import { LazyError } from "../errors.ts";
import { mountAt } from "../native/mounts.ts";
import { parseMountReply, SERVE_COMMAND, type MountEnvironment, type MountReply, type MountRequest } from "./mount-request.ts";
import { createRuntime, LOG_NAME, processEnds, realDirectory, removeRuntime, sendSignal, type MountRuntime } from "./mount-runtime.ts";
import { checkReadable, checkWritable } from "./trace-file.ts";

export const DEFAULT_CACHE_GB = 4;
/** How long a serving process that was told to stop may take, before it is killed. */
const STOP_TIMEOUT_MS = 10_000;

const EXAMPLES = `
Examples:
  lazylayer mount registry.example/app:1-obd /mnt/app
  lazylayer mount --cache-dir /var/cache/images --cache-size 20 registry.example/app:1-obd /mnt/app
  lazylayer mount --overlay /var/lib/app registry.example/app:1-obd /mnt/app
  lazylayer mount --trace app.trace registry.example/app:1-obd /mnt/app

lazylayer umount takes it down again; lazylayer ls and lazylayer cat read an image without root.`;

export interface MountOptions {
  readonly cacheDir: string;
  readonly cacheSize: number;
}

interface OwnOptions {
  readonly overlay?: string;
  readonly trace?: string;
  readonly recordTrace?: string;
}

export function addMountCommand(program: Command, environment: MountEnvironment): void {
  const command = program
    .command("mount")
    .summary("mount a converted image, fetching only what is read")
    .description(
      "Mounts a converted image on DIRECTORY (needs root), read-only or with an overlay that takes what is written. Blocks are fetched\n" +
        "when they are read, and kept in the cache.\n" +
        "The mount is nosuid and nodev: programs of the image get no rights by set-user-id bits or file capabilities, and its device files lead\n" +
        "nowhere. mount -o remount,suid DIRECTORY allows the former, for images that you trust.",
    )
    .argument("<image>", "image reference, or oci:DIRECTORY[:TAG]")
    .argument("<directory>", "an existing directory that nothing is mounted on")
    .option("--overlay <directory>", "let the mount be written to; what is written is kept in this directory, made if it is missing")
    .option("--trace <file>", "fetch what this trace, or list of paths, names while the image is mounted, the first things first")
    .option("--record-trace <file>", "write what is read of the image to this file when the mount ends (reads are slower until then)");
  addCacheOptions(command, environment);
  environment.addStoreOptions?.(command);
  command.addHelpText("after", EXAMPLES);
  command.action(async (image: string, directory: string, options: MountOptions & OwnOptions) => {
    requireRoot("mount");
    const { overlay, trace, recordTrace, ...others } = options;
    const own = {
      overlay: overlay === undefined ? undefined : resolve(overlay),
      trace: trace === undefined ? undefined : await checkReadable(trace),
      recordTrace: recordTrace === undefined ? undefined : await checkWritable(recordTrace),
    };
    const request = { ...(await mountRequest(image, directory, others, environment)), ...own };
    await startServing(request, environment);
    environment.stdout.write(`${request.directory}\n`);
  });
}

export function addCacheOptions(command: Command, environment: MountEnvironment): void {
  command
    .option("--cache-dir <directory>", "where fetched blocks are kept", environment.cacheDirectory)
    .addOption(
      new Option("--cache-size <GB>", "disk space for fetched blocks")
        .argParser(parseGigabytes)
        .default(DEFAULT_CACHE_GB * 1e9, String(DEFAULT_CACHE_GB)),
    );
}

/** What to ask of the serving process; `options` are those that `addCacheOptions` and the environment added. */
export async function mountRequest(
  image: string,
  directory: string,
  { cacheDir, cacheSize, ...parsed }: MountOptions,
  environment: MountEnvironment,
): Promise<MountRequest> {
  const storeOptions = (await environment.readStoreOptions?.(parsed)) ?? parsed;
  return {
    // The process that serves it runs elsewhere.
    image: environment.absoluteReference?.(image) ?? image,
    directory: await freeDirectory(directory),
    storeOptions,
    cacheDirectory: cacheDir,
    cacheBytes: cacheSize,
  };
}

export function parseGigabytes(text: string): number {
  const bytes = Math.round(Number(text) * 1e9);
  if (!(bytes >= 1e7 && bytes <= 1e15)) throw new InvalidArgumentError("expected a number of GB from 0.01 to 1000000");
  return bytes;
}

/** Mounting is the kernel's privilege; reading an image is not. */
export function requireRoot(command: string): void {
  if (process.geteuid?.() === 0) return;
  throw new LazyError(
    "DENIED",
    `lazylayer ${command} needs root, to mount a file system; lazylayer ls and lazylayer cat read an image without`,
  );
}

async function freeDirectory(directory: string): Promise<string> {
  const path = await realDirectory(directory);
  const busy = mountAt(path);
  if (busy !== undefined)
    throw new LazyError(
      "USAGE",
      `${directory}: ${busy.type} from ${busy.source} is mounted there already; umount it or name another directory`,
    );
  if (!statSync(path).isDirectory()) throw new LazyError("USAGE", `${directory}: is not a directory`);
  return path;
}

/** Starts the serving process and returns when the image is mounted; else nothing is left of it. */
export async function startServing(request: MountRequest, environment: MountEnvironment): Promise<void> {
  const runtime = createRuntime(environment.stateDirectory, request.directory, request.overlay);
  const server = spawnServer(runtime, environment);
  try {
    const reply = await replyOf(server, request, environment.signal);
    if (reply.kind === "failed") throw new LazyError(reply.code, reply.message);
    for (const warning of reply.warnings) environment.stderr.write(`warning: ${warning}\n`);
    server.disconnect();
    server.unref();
  } catch (error) {
    await stopServer(server);
    const failure = error instanceof LazyError || environment.signal.aborted ? error : crashed(runtime, error);
    await removeRuntime(runtime, "lazy");
    throw failure;
  }
}

function spawnServer({ runtimeDirectory }: MountRuntime, { launcher: [command, ...args] }: MountEnvironment): ChildProcess {
  const log = openSync(join(runtimeDirectory, LOG_NAME), "a", 0o600);
  try {
    return spawn(command, [...args, SERVE_COMMAND, runtimeDirectory], { cwd: "/", detached: true, stdio: ["ignore", log, log, "ipc"] });
  } finally {
    closeSync(log);
  }
}

async function replyOf(server: ChildProcess, request: MountRequest, signal: AbortSignal): Promise<MountReply> {
  const reply = Promise.withResolvers<MountReply>();
  const onAbort = (): void => reply.reject(signal.reason);
  signal.addEventListener("abort", onAbort);
  server.once("error", reply.reject);
  server.once("exit", (code, by) => reply.reject(new Error(`the serving process ended ${by ? `by ${by}` : `with status ${code}`}`)));
  server.once("message", (message) => {
    try {
      reply.resolve(parseMountReply(message));
    } catch (error) {
      reply.reject(error);
    }
  });
  if (signal.aborted) onAbort();
  else server.send(request, (error) => error && reply.reject(error));
  try {
    return await reply.promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function crashed(runtime: MountRuntime, cause: unknown): LazyError {
  const log = readFileSync(join(runtime.runtimeDirectory, LOG_NAME), "utf8").trim().slice(-2000);
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LazyError("UNAVAILABLE", `${runtime.directory}: ${reason}${log === "" ? "" : `; it said:\n${log}`}`, { cause });
}

async function stopServer({ pid }: ChildProcess): Promise<void> {
  if (pid === undefined) return;
  sendSignal(pid, "SIGTERM");
  if (await processEnds(pid, STOP_TIMEOUT_MS)) return;
  sendSignal(pid, "SIGKILL");
  await processEnds(pid, STOP_TIMEOUT_MS);
}
