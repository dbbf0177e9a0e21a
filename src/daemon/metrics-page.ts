import { ERROR_CODES } from "../errors.ts";
import type { DeviceStats, Latency, TraceStats } from "./device-stats.ts";
import { LATENCY_BOUNDS } from "./stopwatch.ts";

/** What a page is made from. */
export interface Observation {
  readonly hostname: string;
  readonly unixMs: number;
  /** Of all devices that answered. */
  readonly devices: readonly DeviceStats[];
  /** How many devices there are in each state. */
  readonly states: Readonly<Record<string, number>>;
  readonly restarts: number;
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number, suffix?: string];

const STATES = ["running", "starting", "restarting"] as const;

/** Totals of one kind of traffic, as they were at a moment. */
interface Totals {
  readonly requests: number;
  readonly bytes: number;
}

/**
 * Prometheus' text, version 0.0.4: the figures under the names that dashboards of overlaybd know, and our own, which begin with
 * `lazylayer_`. Rates are of the time since the page was made last. No figure has a device's name: a label has few values.
 */
export class MetricsPage {
  #before: { readonly unixMs: number; readonly pread: Totals; readonly download: Totals } | undefined;

  render(observation: Observation): string {
    const { unixMs, devices } = observation;
    const pread = totals(
      devices.map(({ reads }) => ({ requests: reads.cached + reads.waited, bytes: reads.cachedBytes + reads.waitedBytes })),
    );
    const download = totals(devices.map(({ downloads }) => downloads));
    const before = this.#before;
    this.#before = { unixMs, pread, download };
    const seconds = before === undefined ? 0 : (unixMs - before.unixMs) / 1000;
    const rate = (now: number, then: number | undefined): number =>
      seconds > 0 && then !== undefined ? Math.max(0, now - then) / seconds : 0;
    return [
      ...knownFamilies(observation, [
        {
          tag: "pread",
          totals: pread,
          bytesPerSecond: rate(pread.bytes, before?.pread.bytes),
          perSecond: rate(pread.requests, before?.pread.requests),
          maxSeconds: longest(devices.map(({ reads }) => reads.latency)),
        },
        {
          tag: "download",
          totals: download,
          bytesPerSecond: rate(download.bytes, before?.download.bytes),
          perSecond: rate(download.requests, before?.download.requests),
          maxSeconds: longest(devices.map(({ downloads }) => downloads.latency)),
        },
      ]),
      ...ownFamilies(observation),
    ].join("");
  }
}

interface Traffic {
  readonly tag: string;
  readonly totals: Totals;
  readonly bytesPerSecond: number;
  readonly perSecond: number;
  readonly maxSeconds: number;
}

/** Names, spelling, comments and the use of the labels are what dashboards expect. */
function knownFamilies({ hostname, unixMs }: Observation, traffic: readonly Traffic[]): string[] {
  const each = (labels: readonly string[], value: (of: Traffic) => number): Sample[] =>
    traffic.map((of) => [Object.fromEntries(labels.map((label) => [label, label === "node" ? of.tag : ""])), value(of)]);
  const family = (name: string, comment: string, samples: readonly Sample[]): string => {
    const lines = samples.map(([labels, value]) => `${name}${labelText(labels)}  ${value.toFixed(6)} ${Math.round(unixMs)}\n`);
    return `# HELP ${name} ${comment}\n# TYPE ${name} gauge\n${lines.join("")}\n`;
  };
  return [
    family("OverlayBD_Alive", "", [[{ node: hostname }, 1]]),
    family(
      "OverlayBD_Read_Throughtput",
      "Bytes / sec",
      each(["node", "type", "mode"], (of) => of.bytesPerSecond),
    ),
    family(
      "OverlayBD_QPS",
      "",
      each(["node", "type", "mode"], (of) => of.perSecond),
    ),
    family(
      "OverlayBD_MaxLatency",
      "us",
      each(["node", "type", "mode"], (of) => of.maxSeconds * 1e6),
    ),
    family(
      "OverlayBD_Count",
      "Bytes",
      each(["node", "type"], (of) => of.totals.bytes),
    ),
  ];
}

function ownFamilies({ devices, states, restarts }: Observation): string[] {
  const sum = (value: (stats: DeviceStats) => number): number => devices.reduce((total, stats) => total + value(stats), 0);
  return [
    ownFamily(
      "lazylayer_devices",
      "gauge",
      "Devices by state.",
      STATES.map((state) => [{ state }, states[state] ?? 0]),
    ),
    ownFamily("lazylayer_device_restarts_total", "counter", "Device processes that were started again.", [[{}, restarts]]),
    ownFamily("lazylayer_device_resident_bytes", "gauge", "Memory of all device processes.", [[{}, sum(({ rssBytes }) => rssBytes)]]),
    ownFamily("lazylayer_reads_total", "counter", "Reads of devices, by whether they had to wait for something.", [
      [{ answered: "cached" }, sum(({ reads }) => reads.cached)],
      [{ answered: "waited" }, sum(({ reads }) => reads.waited)],
    ]),
    ownFamily("lazylayer_read_bytes_total", "counter", "Bytes read of devices.", [
      [{ answered: "cached" }, sum(({ reads }) => reads.cachedBytes)],
      [{ answered: "waited" }, sum(({ reads }) => reads.waitedBytes)],
    ]),
    ownFamily("lazylayer_writes_total", "counter", "Writes to devices.", [[{}, sum(({ writes }) => writes.requests)]]),
    ownFamily("lazylayer_written_bytes_total", "counter", "Bytes written to devices.", [[{}, sum(({ writes }) => writes.bytes)]]),
    ownFamily("lazylayer_fetches_total", "counter", "Reads of layers where they are kept.", [[{}, sum(({ fetches }) => fetches.requests)]]),
    ownFamily("lazylayer_fetched_bytes_total", "counter", "Bytes read of layers where they are kept.", [
      [{}, sum(({ fetches }) => fetches.bytes)],
    ]),
    ownFamily("lazylayer_downloaded_bytes_total", "counter", "Bytes that came from registries.", [
      [{}, sum(({ downloads }) => downloads.bytes)],
    ]),
    ownFamily("lazylayer_layer_downloads", "gauge", "Layers that are downloaded whole in the background, by state.", [
      [{ state: "pending" }, sum(({ layerDownloads: { total, done, failed } }) => total - done - failed)],
      [{ state: "done" }, sum(({ layerDownloads }) => layerDownloads.done)],
      [{ state: "failed" }, sum(({ layerDownloads }) => layerDownloads.failed)],
    ]),
    ownFamily("lazylayer_layer_downloaded_bytes_total", "counter", "Bytes of layers that came in the background.", [
      [{}, sum(({ layerDownloads }) => layerDownloads.bytes)],
    ]),
    ownFamily("lazylayer_evictions_total", "counter", "Files that caches dropped to stay under their size.", [
      [{}, sum(({ evictions }) => evictions.files)],
    ]),
    ownFamily("lazylayer_evicted_bytes_total", "counter", "Bytes that caches dropped to stay under their size.", [
      [{}, sum(({ evictions }) => evictions.bytes)],
    ]),
    ...traceFamilies(devices.flatMap(({ trace }) => trace ?? [])),
    histogram(
      "lazylayer_read_seconds",
      "Time of reads that had to wait.",
      devices.map(({ reads }) => [reads.latency, reads.waited]),
    ),
    histogram(
      "lazylayer_download_seconds",
      "Time of requests to registries.",
      devices.map(({ downloads }) => [downloads.latency, downloads.requests]),
    ),
    ownFamily(
      "lazylayer_errors_total",
      "counter",
      "Requests that failed, by code.",
      // Labels that nobody can add to.
      ERROR_CODES.map((code) => [{ code }, sum(({ errors }) => errors[code] ?? 0)]),
    ),
  ];
}

function traceFamilies(traces: readonly TraceStats[]): string[] {
  const active = (mode: TraceStats["mode"]): number => traces.filter((trace) => trace.mode === mode && trace.active).length;
  const replays = traces.filter((trace) => trace.mode === "replay");
  const sum = (value: (replay: (typeof replays)[number]) => number): number => replays.reduce((total, replay) => total + value(replay), 0);
  return [
    ownFamily("lazylayer_traces", "gauge", "Devices whose reads are being recorded, or fetched ahead by a trace.", [
      [{ mode: "record" }, active("record")],
      [{ mode: "replay" }, active("replay")],
    ]),
    ownFamily("lazylayer_prefetched_bytes_total", "counter", "Bytes of layers that traces brought.", [[{}, sum(({ bytes }) => bytes)]]),
    ownFamily("lazylayer_prefetch_failures_total", "counter", "Reads of traces that failed.", [[{}, sum(({ failed }) => failed)]]),
  ];
}

function ownFamily(name: string, type: "gauge" | "counter" | "histogram", help: string, samples: readonly Sample[]): string {
  const lines = samples.map(([labels, value, suffix = ""]) => `${name}${suffix}${labelText(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}\n`;
}

function histogram(name: string, help: string, parts: readonly (readonly [latency: Latency, count: number])[]): string {
  const count = parts.reduce((total, [, of]) => total + of, 0);
  const seconds = parts.reduce((total, [latency]) => total + latency.seconds, 0);
  const below = (bound: number): number =>
    parts.reduce((total, [{ buckets }]) => total + (buckets.find((bucket) => bucket.seconds === bound)?.count ?? 0), 0);
  return ownFamily(name, "histogram", help, [
    ...LATENCY_BOUNDS.map((bound): Sample => [{ le: String(bound) }, below(bound), "_bucket"]),
    [{ le: "+Inf" }, count, "_bucket"],
    [{}, seconds, "_sum"],
    [{}, count, "_count"],
  ]);
}

function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`))}"`,
  );
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

function totals(parts: readonly Totals[]): Totals {
  return parts.reduce((sum, { requests, bytes }) => ({ requests: sum.requests + requests, bytes: sum.bytes + bytes }), {
    requests: 0,
    bytes: 0,
  });
}

function longest(latencies: readonly Latency[]): number {
  return latencies.reduce((longest, { maxSeconds }) => Math.max(longest, maxSeconds), 0);
}
