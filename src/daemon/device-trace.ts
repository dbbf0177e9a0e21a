import type { OpenedImage } from "../device/image-config.ts";
import type { Device } from "../device/device.ts";
import { Prefetch } from "../device/prefetch.ts";
import { readPrefetchFile } from "../device/prefetch-file.ts";
import { TraceRecording } from "../device/prefetch-recording.ts";
import type { ProgramReads } from "../device/prefetch-reads.ts";
import { messageOf } from "../errors.ts";
import type { TraceStats } from "./device-stats.ts";
import { unrepeated, type Log } from "./log/log.ts";

export interface DeviceTraceOptions {
  /** Recorded reads that are replayed at the same time. */
  readonly concurrency: number;
  /** Not more is fetched ahead: the cache would drop the first things for the last. */
  readonly maxBytes: number;
  /** Reads that one recording keeps; by default as the recorder has it. */
  readonly maxRecords?: number;
  readonly log: Log;
}

/** What is recorded of a device's reads, or fetched ahead of them, while it is served. */
export interface DeviceTrace {
  /** Not zero as long as no worker thread may read, since each read is to be noted. */
  readonly held: Int32Array | undefined;
  stats(): TraceStats;
  /** Ends it. What was recorded is written. */
  close(): Promise<void>;
  /** Ends it, and nothing is written. */
  discard(): Promise<void>;
}

/**
 * Begins what an image's configuration asks for; undefined when that is nothing, or cannot be done. Nothing that goes wrong with it is
 * wrong with the device: it is said in the log. See docs/formats/trace.md.
 */
export async function openDeviceTrace(
  { trace, lowers, reads }: OpenedImage,
  options: DeviceTraceOptions,
): Promise<DeviceTrace | undefined> {
  if (trace === undefined || lowers === undefined || reads === undefined) return undefined;
  const { path, mode } = trace;
  try {
    return mode === "record" ? await record(path, reads, options) : await replay(path, lowers, reads, options);
  } catch (error) {
    options.log("error", `${messageOf(error)}; ${mode === "record" ? "what is read is not recorded" : "nothing is fetched ahead"}`);
    return undefined;
  }
}

async function record(path: string, reads: ProgramReads, { log, maxRecords }: DeviceTraceOptions): Promise<DeviceTrace> {
  const failed = (error: unknown): void => log("error", messageOf(error));
  const recording = await TraceRecording.start(path, { onFailure: failed, maxRecords });
  const { recorder } = recording;
  reads.record(recorder);
  log("info", `${path}: what is read is recorded`);
  const held = new Int32Array(new SharedArrayBuffer(4)).fill(1);
  void recording.ended.then(() => {
    Atomics.store(held, 0, 0);
    log("info", `${path}: recording has ended, with ${recorder.records.length} reads`);
  });
  return {
    held,
    stats: () => ({ mode: "record", path, active: Atomics.load(held, 0) !== 0, records: recorder.records.length, bytes: recorder.bytes }),
    close: async () => await recording.end().catch(failed),
    discard: async () => await recording.discard(),
  };
}

async function replay(path: string, lowers: Device, reads: ProgramReads, options: DeviceTraceOptions): Promise<DeviceTrace> {
  const { concurrency, maxBytes, log } = options;
  const wanted = await readPrefetchFile(path);
  const onFailure = unrepeated((message) => log("warn", `fetching ahead failed: ${message}`));
  const prefetch = new Prefetch(lowers, wanted, {
    readers: concurrency,
    maxBytes,
    idle: async () => await reads.idle(),
    onFailure: (error) => onFailure(messageOf(error)),
  });
  const { counts } = prefetch;
  log("info", `${path}: what it names is fetched ahead`);
  void prefetch.ended.then(() => log("info", `${path}: ${counts.bytes} bytes in ${counts.pieces} pieces were fetched ahead`));
  const stop = async (): Promise<void> => prefetch.stop();
  return {
    held: undefined,
    stats: () => ({ mode: "replay", path, active: !counts.ended, pieces: counts.pieces, bytes: counts.bytes, failed: counts.failed }),
    close: stop,
    discard: stop,
  };
}
