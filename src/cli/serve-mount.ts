import { once } from "node:events";
import { availableParallelism } from "node:os";
import type { Command } from "commander";
import { BlockCache } from "../cache/block-cache.ts";
import type { BlobPlace } from "../device/blob-place.ts";
import type { FetchCounts } from "../device/counted-source.ts";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open-device.ts";
import { probeFilesystem, type Filesystem } from "../device/filesystem.ts";
import { Prefetch, type PrefetchOptions } from "../device/prefetch.ts";
import { readAcceleration } from "../device/prefetch-acceleration.ts";
import { readPrefetchFile } from "../device/prefetch-file.ts";
import { TraceRecording } from "../device/prefetch-recording.ts";
import { ProgramReads } from "../device/prefetch-reads.ts";
import { LazyError, messageOf } from "../errors.ts";
import { FuseServer } from "../export/fuse/fuse-server.ts";
import { mountFilesystem } from "../export/filesystem.ts";
import type { PrefetchFile } from "../formats/trace/prefetch-file.ts";
import { parseMountRequest, SERVE_COMMAND, type MountEnvironment, type MountReply, type MountRequest } from "./mount-request.ts";
import { removeRuntime, runtimeAt, type MountRuntime } from "./mount-runtime.ts";
import { writeTimes } from "./trace-times.ts";

const CHUNK_BYTES = 64 * 1024;
const MAX_WORKERS = 4;

/** Adds the hidden command that `mount` starts: the process that serves one mount until it is unmounted. */
export function addServeMountCommand(program: Command, environment: MountEnvironment): void {
  program
    .command(SERVE_COMMAND, { hidden: true })
    .argument("<runtime-directory>")
    .action(async (runtimeDirectory: string) => {
      const request = parseMountRequest((await once(process, "message"))[0]);
      await serve(request, runtimeAt(runtimeDirectory, request.directory, request.overlay), environment);
      // Connections that were cut off may linger; everything worth waiting for has been waited for.
      process.exit();
    });
}

/** Serves until the mount ends, by whatever end, and leaves nothing of it behind. */
async function serve(request: MountRequest, runtime: MountRuntime, environment: MountEnvironment): Promise<void> {
  const stop = new AbortController();
  const parentGone = (): void => stop.abort(new LazyError("UNAVAILABLE", "the mount command ended before the image was mounted"));
  process.once("disconnect", parentGone);
  const signal = AbortSignal.any([stop.signal, environment.signal]);
  try {
    const session = await raceAbort(openSession(request, environment), signal);
    await mountAndServe(session, runtime, environment, signal, async () => {
      process.off("disconnect", parentGone);
      return await reply({ kind: "ready", warnings: session.warnings.slice() });
    });
    await session.device.close();
    await session.close();
  } catch (error) {
    environment.stderr.write(`${messageOf(error)}\n`);
    const { code, message } = error instanceof LazyError ? error : { code: "UNAVAILABLE" as const, message: messageOf(error) };
    await removeRuntime(runtime, "lazy");
    await reply({ kind: "failed", code, message });
    process.exitCode = 1;
  }
}

/** Resolves when the parent has the message, or is gone. */
async function reply(message: MountReply): Promise<void> {
  const sent = Promise.withResolvers<unknown>();
  if (process.connected) process.send?.(message, undefined, undefined, sent.resolve);
  else sent.resolve(undefined);
  await sent.promise;
}

async function raceAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort);
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

interface Session {
  readonly device: Device;
  readonly reads: ProgramReads;
  readonly request: MountRequest;
  readonly prefetch: Prefetch | undefined;
  readonly warnings: readonly string[];
  /** What opening the layers took. */
  readonly fetchedToOpen: FetchCounts;
  readonly filesystem: Filesystem;
  close(): Promise<void>;
}

async function openSession(request: MountRequest, environment: MountEnvironment): Promise<Session> {
  const cache = await BlockCache.open(request.cacheDirectory, {
    capacityBytes: request.cacheBytes,
    chunkBytes: CHUNK_BYTES,
    onDiskFailure: (error) => environment.stderr.write(`cache: ${messageOf(error)}; what is read from now on may not be kept\n`),
  });
  const { store, dataPlace, manifest, close } = await environment.openImage(request.image, request.storeOptions);
  const device = await openDevice(store, manifest, { cache, dataPlace });
  const fetchedToOpen = { ...device.fetched };
  const filesystem = await probeFilesystem(device);
  const reads = new ProgramReads(device);
  const warnings: string[] = [];
  const wanted = await wantedAhead(device, store, request, warnings);
  const options: PrefetchOptions = {
    maxBytes: request.cacheBytes / 2,
    idle: async () => await reads.idle(),
    onFailure: reporter(environment, "fetching ahead failed: "),
  };
  const prefetch = wanted === undefined ? undefined : new Prefetch(device, wanted, options);
  return { device, reads, request, prefetch, warnings, fetchedToOpen, filesystem, close };
}

/** What was asked for, or else what the image itself wants. A damaged trace only costs the time that it would have saved. */
async function wantedAhead(
  device: Device,
  store: BlobPlace,
  { trace }: MountRequest,
  warnings: string[],
): Promise<PrefetchFile | undefined> {
  try {
    if (trace !== undefined) return await readPrefetchFile(trace);
    return device.acceleration === undefined ? undefined : await readAcceleration(device.acceleration, store);
  } catch (error) {
    warnings.push(`${messageOf(error)}; mounted without fetching ahead`);
    return undefined;
  }
}

async function mountAndServe(
  { device, reads, request, prefetch, filesystem, fetchedToOpen }: Session,
  runtime: MountRuntime,
  environment: MountEnvironment,
  signal: AbortSignal,
  onReady: () => Promise<void>,
): Promise<void> {
  const fetchedToMount: FetchCounts = { requests: 0, bytes: 0 };
  const reportRead = reporter(environment);
  let server: FuseServer | undefined;
  let recording: TraceRecording | undefined;
  try {
    recording = await startRecording(request, reads, reportRead);
    server = await FuseServer.mount({
      directory: runtime.exportDirectory,
      content: reads,
      reader: recording === undefined ? device.cachedReader : undefined, // workers would read what nobody notes
      workers: Math.min(MAX_WORKERS, availableParallelism()),
      stats: () =>
        `${JSON.stringify({ ...describe(device), fetchedToOpen, fetchedToMount, prefetch: prefetch?.counts, reads: server?.counts() })}\n`,
      onReadFailure: (error, offset, length) => reportRead(error, `read of [${offset}, ${offset + length}) failed: `),
      onStartFailure: (error) => environment.stderr.write(`${messageOf(error)}\n`),
    });
    await mountUnlessAborted(server, filesystem, runtime, environment, signal);
    Object.assign(fetchedToMount, device.fetched);
    await onReady();
    try {
      await raceAbort(Promise.race([server.released(), server.ended]), signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    } finally {
      await recording?.end();
      if (recording !== undefined && request.recordTimes !== undefined) await writeTimes(request.recordTimes, recording.recorder.times);
    }
  } finally {
    await recording?.discard();
    prefetch?.stop();
    await removeRuntime(runtime, "lazy");
    await server?.close();
  }
}

async function startRecording(
  { recordTrace }: MountRequest,
  reads: ProgramReads,
  onFailure: (error: unknown) => void,
): Promise<TraceRecording | undefined> {
  if (recordTrace === undefined) return undefined;
  const start = performance.now();
  const recording = await TraceRecording.start(recordTrace, { onFailure, now: () => performance.now() - start });
  reads.record(recording.recorder);
  return recording;
}

/** Mounting waits for reads; when it is to stop, or nobody answers them, the connection is cut, and they fail. */
async function mountUnlessAborted(
  server: FuseServer,
  filesystem: Filesystem,
  runtime: MountRuntime,
  { stderr }: MountEnvironment,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const connection = new AbortController();
  const cut = (reason: unknown): void => {
    connection.abort(reason);
    server.disconnect().catch((error: unknown) => stderr.write(`${messageOf(error)}\n`));
  };
  const onAbort = (): void => cut(signal.reason);
  signal.addEventListener("abort", onAbort);
  server.ended.catch(cut);
  try {
    const options = ["ro", "nosuid", "nodev", ...(filesystem.type === "ext4" ? ext4Options(filesystem) : [])];
    await mountFilesystem(runtime, { type: filesystem.type, sectorBytes: filesystem.sectorBytes, options }, connection.signal);
  } catch (error) {
    connection.signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function ext4Options({ needsRecovery }: Filesystem): string[] {
  return ["errors=continue", ...(needsRecovery ? ["noload"] : [])];
}

function describe(device: Device): object {
  return { layers: device.layerCount, blobBytes: device.blobBytes, deviceBytes: device.size, fetched: device.fetched };
}

/** The same failure again and again is said once. */
function reporter({ stderr }: MountEnvironment, usually = ""): (error: unknown, what?: string) => void {
  let last = "";
  return (error, what = usually) => {
    const message = messageOf(error);
    if (message !== last) stderr.write(`${what}${message}\n`);
    last = message;
  };
}
