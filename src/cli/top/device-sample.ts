import { z } from "zod";
import { deviceReportSchema, type DeviceReport } from "../../daemon/device-report.ts";
import { deviceStatsSchema, type DeviceStats } from "../../daemon/device-stats.ts";
import { callJson } from "../../daemon/json-client.ts";

/** Devices that are asked at the same time. */
const MAX_ASKED = 16;
const LIST_TIMEOUT_MS = 5_000;
/** A device that takes longer has no figures this time. */
const STATS_TIMEOUT_MS = 2_000;

/** What a daemon's devices have done up to a moment. */
export interface Sample {
  /** A clock's. */
  readonly ms: number;
  readonly devices: readonly SampledDevice[];
}

export interface SampledDevice {
  readonly report: DeviceReport;
  /** Undefined for a device that gave none. */
  readonly stats: DeviceStats | undefined;
}

/** Asks a daemon for its devices, and each of them what it has done. Throws as `callJson` does when the daemon does not answer. */
export async function takeSample(socketPath: string, signal: AbortSignal): Promise<Sample> {
  const list = await callJson({ socketPath, method: "GET", path: "/devices", timeoutMs: LIST_TIMEOUT_MS, signal });
  const { devices: reports } = z.object({ devices: z.array(deviceReportSchema) }).parse(list);
  const devices: SampledDevice[] = reports.map((report) => ({ report, stats: undefined }));
  let next = 0;
  const ask = async (): Promise<void> => {
    while (next < reports.length) {
      const index = next++;
      const report = reports[index];
      devices[index] = { report, stats: report.state === "running" ? await statsOf(report, socketPath, signal) : undefined };
    }
  };
  await Promise.all(Array.from({ length: MAX_ASKED }, ask));
  return { ms: performance.now(), devices };
}

async function statsOf({ id }: DeviceReport, socketPath: string, signal: AbortSignal): Promise<DeviceStats | undefined> {
  const path = `/devices/${encodeURIComponent(id)}/stats`;
  const answer = await callJson({ socketPath, method: "GET", path, timeoutMs: STATS_TIMEOUT_MS, signal }).catch(() => undefined);
  signal.throwIfAborted();
  return deviceStatsSchema.safeParse(answer).data;
}
