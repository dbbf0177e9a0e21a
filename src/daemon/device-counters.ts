import { ERROR_CODES } from "../errors.ts";
import type { DeviceStats, Latency } from "./device-stats.ts";
import { LATENCY_BOUNDS } from "./stopwatch.ts";

export type Labels = Readonly<Record<string, string>>;
type Value = (stats: DeviceStats) => number;

interface CounterFamily {
  readonly name: string;
  readonly type: "counter" | "histogram";
  readonly help: string;
  readonly samples: readonly (readonly [labels: Labels, value: Value, suffix?: string])[];
}

/** What of a device's figures only grows while its process lives, as Prometheus is told. */
export const DEVICE_COUNTERS: readonly CounterFamily[] = [
  counter("lazylayer_reads_total", "Reads of devices, by whether they had to wait for something.", [
    [{ answered: "cached" }, ({ reads }) => reads.cached],
    [{ answered: "waited" }, ({ reads }) => reads.waited],
  ]),
  counter("lazylayer_read_bytes_total", "Bytes read of devices.", [
    [{ answered: "cached" }, ({ reads }) => reads.cachedBytes],
    [{ answered: "waited" }, ({ reads }) => reads.waitedBytes],
  ]),
  counter("lazylayer_writes_total", "Writes to devices.", [[{}, ({ writes }) => writes.requests]]),
  counter("lazylayer_written_bytes_total", "Bytes written to devices.", [[{}, ({ writes }) => writes.bytes]]),
  counter("lazylayer_fetches_total", "Reads of layers where they are kept.", [[{}, ({ fetches }) => fetches.requests]]),
  counter("lazylayer_fetched_bytes_total", "Bytes read of layers where they are kept.", [[{}, ({ fetches }) => fetches.bytes]]),
  counter("lazylayer_downloaded_bytes_total", "Bytes that came from registries.", [[{}, ({ downloads }) => downloads.bytes]]),
  counter("lazylayer_layer_downloaded_bytes_total", "Bytes of layers that came in the background.", [
    [{}, ({ layerDownloads }) => layerDownloads.bytes],
  ]),
  counter("lazylayer_evictions_total", "Files that caches dropped to stay under their size.", [[{}, ({ evictions }) => evictions.files]]),
  counter("lazylayer_evicted_bytes_total", "Bytes that caches dropped to stay under their size.", [
    [{}, ({ evictions }) => evictions.bytes],
  ]),
  counter("lazylayer_prefetched_bytes_total", "Bytes of layers that traces brought.", [
    [{}, ({ trace }) => (trace?.mode === "replay" ? trace.bytes : 0)],
  ]),
  counter("lazylayer_prefetch_failures_total", "Reads of traces that failed.", [
    [{}, ({ trace }) => (trace?.mode === "replay" ? trace.failed : 0)],
  ]),
  histogram(
    "lazylayer_read_seconds",
    "Time of reads that had to wait.",
    ({ reads }) => reads.latency,
    ({ reads }) => reads.waited,
  ),
  histogram(
    "lazylayer_download_seconds",
    "Time of requests to registries.",
    ({ downloads }) => downloads.latency,
    ({ downloads }) => downloads.requests,
  ),
  counter(
    "lazylayer_errors_total",
    "Requests that failed, by code.",
    // Labels that nobody can add to.
    ERROR_CODES.map((code) => [{ code }, ({ errors }) => errors[code] ?? 0]),
  ),
];

/** The values of all samples, in their order. */
export function countsOf(stats: DeviceStats): number[] {
  return DEVICE_COUNTERS.flatMap(({ samples }) => samples.map(([, value]) => value(stats)));
}

function counter(name: string, help: string, samples: CounterFamily["samples"]): CounterFamily {
  return { name, type: "counter", help, samples };
}

function histogram(name: string, help: string, latency: (stats: DeviceStats) => Latency, count: Value): CounterFamily {
  const below =
    (bound: number): Value =>
    (stats) =>
      latency(stats).buckets.find(({ seconds }) => seconds === bound)?.count ?? 0;
  const samples: CounterFamily["samples"] = [
    ...LATENCY_BOUNDS.map((bound) => [{ le: String(bound) }, below(bound), "_bucket"] as const),
    [{ le: "+Inf" }, count, "_bucket"],
    [{}, (stats) => latency(stats).seconds, "_sum"],
    [{}, count, "_count"],
  ];
  return { name, type: "histogram", help, samples };
}
