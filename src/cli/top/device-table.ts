import type { DeviceReport } from "../../daemon/device-report.ts";
import type { DeviceStats } from "../../daemon/device-stats.ts";
import { byteText } from "../progress/byte-text.ts";
import type { Sample, SampledDevice } from "./device-sample.ts";

export interface TableSize {
  readonly columns: number;
  /** Of all lines; undefined: as many as there are devices. */
  readonly rows: number | undefined;
}

/** What a device has done from one sample to the next. */
interface Activity {
  readonly readsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Part of the reads that did not have to wait; undefined when there were none. */
  readonly cachedPart: number | undefined;
  readonly downloadedPerSecond: number;
}

interface Row {
  readonly report: DeviceReport;
  readonly stats: DeviceStats | undefined;
  /** Undefined until it is known from two samples of the same process. */
  readonly activity: Activity | undefined;
}

/** The columns behind the name: heading, width, text. */
const COLUMNS: readonly (readonly [heading: string, width: number, text: (row: Row) => string])[] = [
  ["STATE", -7, ({ report }) => (report.state === "restarting" ? "restart" : report.state === "starting" ? "starts" : "running")],
  ["AS", -5, ({ report }) => (report.expose.kind === "nbd-disk" ? "disk" : report.expose.kind)],
  ["SIZE", 5, ({ report }) => (report.sizeBytes === undefined ? "-" : shortBytes(report.sizeBytes))],
  ["READ/S", 6, ({ activity }) => (activity ? activity.readsPerSecond.toFixed(0) : "-")],
  ["MB/S", 6, ({ activity }) => (activity ? megabytes(activity.bytesPerSecond) : "-")],
  ["HIT%", 4, ({ activity }) => (activity?.cachedPart === undefined ? "-" : Math.floor(activity.cachedPart * 100).toFixed(0))],
  ["NET", 5, ({ activity }) => (activity ? megabytes(activity.downloadedPerSecond) : "-")],
  ["MAX", 5, ({ stats }) => (stats ? shortSeconds(stats.reads.latency.maxSeconds) : "-")],
  ["RSS", 5, ({ stats }) => (stats ? shortBytes(stats.rssBytes) : "-")],
  ["ERR", 4, ({ stats }) => (stats ? shortCount(errorsOf(stats)) : "-")],
];
const NAME_HEADING = "DEVICE";
const MIN_NAME_WIDTH = 8;
/** `d2` before `d10`. */
const BY_NAME = new Intl.Collator("en", { numeric: true });

/**
 * A table of devices, in lines that fit the columns if there are 80: those that do not run first, then by what is read of them. `before`
 * is an earlier sample, which rates are taken from. Beyond the rows, the last line says how many there are more.
 */
export function deviceTable(before: Sample | undefined, now: Sample, size: TableSize): string[] {
  const rows = now.devices.map((device) => rowOf(device, before, now)).toSorted(byActivity);
  const shown = size.rows === undefined || rows.length + 2 <= size.rows ? rows : rows.slice(0, Math.max(0, size.rows - 3));
  const others = COLUMNS.reduce((sum, [, width]) => sum + Math.abs(width) + 1, 0);
  const longest = Math.max(NAME_HEADING.length, ...shown.map(({ report }) => report.id.length));
  const nameWidth = Math.min(longest, Math.max(MIN_NAME_WIDTH, size.columns - 1 - others));
  const line = (name: string, texts: readonly string[]): string =>
    [cut(name, nameWidth).padEnd(nameWidth), ...texts.map((text, index) => padded(text, COLUMNS[index][1]))].join(" ").trimEnd();
  return [
    summary(rows),
    line(NAME_HEADING, COLUMNS.map(([heading]) => heading)), // prettier-ignore
    ...shown.map((row) => line(row.report.id, COLUMNS.map(([, , text]) => text(row)))), // prettier-ignore
    ...(shown.length < rows.length ? [`and ${rows.length - shown.length} more`] : []),
  ];
}

function rowOf({ report, stats }: SampledDevice, before: Sample | undefined, now: Sample): Row {
  const earlier = before?.devices.find((device) => device.report.id === report.id)?.stats;
  // Another process has begun to count anew.
  const isSame = before !== undefined && stats !== undefined && earlier?.pid === stats.pid && now.ms > before.ms;
  return { report, stats, activity: isSame ? activityOf(earlier, stats, (now.ms - before.ms) / 1000) : undefined };
}

function activityOf(before: DeviceStats, now: DeviceStats, seconds: number): Activity {
  const cached = now.reads.cached - before.reads.cached;
  const reads = cached + now.reads.waited - before.reads.waited;
  const bytes = now.reads.cachedBytes - before.reads.cachedBytes + now.reads.waitedBytes - before.reads.waitedBytes;
  return {
    readsPerSecond: reads / seconds,
    bytesPerSecond: bytes / seconds,
    cachedPart: reads === 0 ? undefined : cached / reads,
    downloadedPerSecond: (now.downloads.bytes - before.downloads.bytes) / seconds,
  };
}

function byActivity(a: Row, b: Row): number {
  const order = (row: Row): number => (row.report.state === "running" ? 1 : 0);
  const bytes = (row: Row): number => row.activity?.bytesPerSecond ?? 0;
  return order(a) - order(b) || bytes(b) - bytes(a) || BY_NAME.compare(a.report.id, b.report.id);
}

function summary(rows: readonly Row[]): string {
  const sum = (value: (row: Row) => number | undefined): number => rows.reduce((total, row) => total + (value(row) ?? 0), 0);
  const running = rows.filter(({ report }) => report.state === "running").length;
  return [
    `${rows.length} device${rows.length === 1 ? "" : "s"}${running === rows.length ? "" : `, ${running} running`}`,
    `${sum(({ activity }) => activity?.readsPerSecond).toFixed(0)} reads/s`,
    `${byteText(sum(({ activity }) => activity?.bytesPerSecond))}/s`,
    `net ${byteText(sum(({ activity }) => activity?.downloadedPerSecond))}/s`,
    `RSS ${byteText(sum(({ stats }) => stats?.rssBytes))}`,
  ].join("  ");
}

function errorsOf({ errors }: DeviceStats): number {
  return Object.values(errors).reduce((sum, count) => sum + count, 0);
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}~`;
}

/** To the left with a width below zero. */
function padded(text: string, width: number): string {
  return width < 0 ? text.padEnd(-width) : text.padStart(width);
}

function megabytes(bytes: number): string {
  const value = bytes / 1e6;
  return value.toFixed(value < 999.95 ? 1 : 0);
}

/** At most five characters: `812`, `1.3k`, `999M`, `69G`. */
function shortBytes(bytes: number): string {
  return shortened(bytes, ["", "k", "M", "G", "T", "P"]);
}

function shortCount(count: number): string {
  return shortened(count, ["", "k", "M", "G"]);
}

function shortened(value: number, units: readonly string[]): string {
  let rest = value;
  let index = 0;
  while (rest >= 999.5 && index < units.length - 1) {
    rest /= 1000;
    index++;
  }
  return `${rest.toFixed(index > 0 && rest < 9.95 ? 1 : 0)}${units[index]}`;
}

/** `0`, `0.4ms`, `12ms`, `1.3s`. */
function shortSeconds(seconds: number): string {
  if (seconds === 0) return "0";
  const milliseconds = seconds * 1000;
  if (milliseconds < 999.5) return `${milliseconds.toFixed(milliseconds < 9.95 ? 1 : 0)}ms`;
  return `${seconds.toFixed(seconds < 99.95 ? 1 : 0)}s`;
}
