import { countsOf, DEVICE_COUNTERS, type Labels } from "./device-counters.ts";
import type { DeviceStats, Latency, TraceStats } from "./device-stats.ts";
import { LastingSums } from "./lasting-sums.ts";

/** What a page is made from. */
export interface Observation {
  readonly hostname: string;
  readonly unixMs: number;
  /** Ids of all devices. */
  readonly ids: ReadonlySet<string>;
  /** Of all devices that answered. */
  readonly devices: readonly DeviceStats[];
  /** How many devices there are in each state. */
  readonly states: Readonly<Record<string, number>>;
  /** Of all devices that there have been. */
  readonly restarts: number;
}

type Sample = readonly [labels: Labels, value: number, suffix?: string | undefined];

const STATES = ["running", "starting", "restarting"] as const;

/** Totals of one kind of traffic, as they were at a moment. */
interface Totals {
  readonly requests: number;
  readonly bytes: number;
}

/**
 * Prometheus' text, version 0.0.4: the figures under the names that dashboards of overlaybd know, and our own, which begin with
 * `lazylayer_`. Rates are of the time since the page was made last. Our counters and histograms never fall: Prometheus would take that
 * for a new beginning, and count all again. No figure has a device's name: a label has few values.
 */
export class MetricsPage {
  readonly #counters = new LastingSums(DEVICE_COUNTERS.flatMap(({ samples }) => samples).length);
  #before: { readonly unixMs: number; readonly pread: Totals; readonly download: Totals } | undefined;

  render(observation: Observation): string {
    const { unixMs, devices, ids } = observation;
    const said = devices.map((stats) => ({ id: stats.id, pid: stats.pid, upSeconds: stats.upSeconds, counts: countsOf(stats) }));
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
      ...ownGauges(observation),
      ownFamily("lazylayer_device_restarts_total", "counter", "Device processes that were started again.", [[{}, observation.restarts]]),
      ...ownCounters(this.#counters.add(said, ids)),
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

function ownGauges({ devices, states }: Observation): string[] {
  const sum = (value: (stats: DeviceStats) => number): number => devices.reduce((total, stats) => total + value(stats), 0);
  const tracing = (mode: TraceStats["mode"]): number => devices.filter(({ trace }) => trace?.mode === mode && trace.active).length;
  return [
    ownFamily(
      "lazylayer_devices",
      "gauge",
      "Devices by state.",
      STATES.map((state) => [{ state }, states[state] ?? 0]),
    ),
    ownFamily("lazylayer_device_resident_bytes", "gauge", "Memory of all device processes.", [[{}, sum(({ rssBytes }) => rssBytes)]]),
    ownFamily("lazylayer_layer_downloads", "gauge", "Layers that are downloaded whole in the background, by state.", [
      [{ state: "pending" }, sum(({ layerDownloads: { total, done, failed } }) => total - done - failed)],
      [{ state: "done" }, sum(({ layerDownloads }) => layerDownloads.done)],
      [{ state: "failed" }, sum(({ layerDownloads }) => layerDownloads.failed)],
    ]),
    ownFamily("lazylayer_traces", "gauge", "Devices whose reads are being recorded, or fetched ahead by a trace.", [
      [{ mode: "record" }, tracing("record")],
      [{ mode: "replay" }, tracing("replay")],
    ]),
  ];
}

/** `sums`: of each sample, in their order. */
function ownCounters(sums: readonly number[]): string[] {
  let next = 0;
  return DEVICE_COUNTERS.map(({ name, type, help, samples }) =>
    ownFamily(
      name,
      type,
      help,
      samples.map(([labels, , suffix]): Sample => [labels, sums[next++], suffix]),
    ),
  );
}

function ownFamily(name: string, type: "gauge" | "counter" | "histogram", help: string, samples: readonly Sample[]): string {
  const lines = samples.map(([labels, value, suffix = ""]) => `${name}${suffix}${labelText(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}\n`;
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
