import type { TracedFile, TraceMap, TracePart } from "../device/prefetch-map.ts";
import { TARGET_LAYERS, type TraceRecord } from "../formats/trace/layout.ts";
import { pathText } from "./path-text.ts";
import { byteText } from "./progress/byte-text.ts";

const WIDTH = 1000;
const HEIGHT = 420;
/** No mark is smaller, or it would not be seen. */
const MARK = 4;
const MAX_ROWS = 1000;

/** What the page shows: the parts of each record, in the records' order. */
export interface TracePageInput {
  readonly image: string;
  readonly layers: number;
  /** Knows the device. */
  readonly map: Pick<TraceMap, "placeOf" | "usedBytes">;
  readonly records: readonly TraceRecord[];
  readonly parts: readonly (readonly TracePart[])[];
  /** When each record was read, in milliseconds, ascending; without, their order stands for it. */
  readonly timesMs?: readonly number[] | undefined;
}

/** What the page shows from left to right. */
interface Axis {
  readonly name: string;
  readonly end: number;
  text(value: number): string;
}

interface PlacedPart {
  readonly part: TracePart;
  readonly layer: number;
  /** On the axis. */
  readonly from: number;
  readonly until: number;
}

interface Row {
  readonly name: string;
  readonly size: number | undefined;
  readonly firstAt: number;
  bytes: number;
}

/** A page in one file: a map of what was read when and where, and a table of the files that it was of. Nothing in it runs or is fetched. */
export function tracePage(input: TracePageInput): string {
  const readBytes = input.parts.flat().reduce((sum, { length }) => sum + length, 0);
  const axis = axisOf(input, readBytes);
  const placed = placeParts(input);
  const title = escape(pathText(Buffer.from(input.image).toString("latin1")));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title}: what was read</title>
<style>
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; }
svg { width: 100%; background: color-mix(in srgb, CanvasText 6%, Canvas); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 1px 8px; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:last-child, td:last-child { text-align: left; width: 100%; white-space: normal; overflow-wrap: anywhere; }
tbody tr:nth-child(odd) { background: color-mix(in srgb, CanvasText 5%, Canvas); }
</style>
</head>
<body>
<h1>${title}</h1>
<p>${input.records.length} reads of ${byteText(readBytes)}, in the order of first access. Of the device, ${byteText(input.map.usedBytes)} are in use.</p>
<p>${legend(input.layers)}</p>
${drawing(placed, axis, input.map)}
<p>From left to right: ${axis.name} (0 to ${axis.text(axis.end)}). From top to bottom: where it is on the device, leaving out what is not in use (0 to ${byteText(input.map.usedBytes)}).</p>
${table(placed, axis, readBytes)}
</body>
</html>
`;
}

function axisOf({ timesMs }: TracePageInput, readBytes: number): Axis {
  if (timesMs === undefined)
    return { name: "what was read, first to last, in bytes that were read before it", end: readBytes, text: byteText };
  const text = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(3)} s`;
  return { name: "when it was read first, since the mount began", end: Math.max(1, timesMs.at(-1) ?? 0), text };
}

function placeParts({ records, parts, timesMs }: TracePageInput): PlacedPart[] {
  let before = 0;
  return parts.flatMap((all, index) =>
    all.map((part): PlacedPart => {
      const start = before;
      before += part.length;
      const layer = records[index].layer % TARGET_LAYERS;
      const time = timesMs?.[index];
      return time === undefined ? { part, layer, from: start, until: before } : { part, layer, from: time, until: time };
    }),
  );
}

function hue(layer: number): string {
  return `hsl(${(210 + layer * 137) % 360} 70% 50%)`;
}

function legend(layers: number): string {
  const shown = Math.min(layers, 32);
  const names = Array.from({ length: shown }, (_, layer) => `<span style="color:${hue(layer)}">■</span> layer ${layer}`);
  return names.join(" &nbsp; ") + (shown < layers ? ` … ${layers - 1}` : "");
}

function drawing(placed: readonly PlacedPart[], { end }: Axis, map: TracePageInput["map"]): string {
  const marks = new Map<number, Set<string>>();
  for (const { part, layer, from, until } of placed) {
    if (part.kind === "hidden") continue;
    const ofLayer = marks.get(layer) ?? new Set();
    marks.set(layer, ofLayer);
    const [x, width] = span(from, until - from, end, WIDTH);
    const [y, height] = span(map.placeOf(part.deviceOffset), part.length, map.usedBytes, HEIGHT);
    ofLayer.add(`M${x} ${y}h${width}v${height}h-${width}z`);
  }
  const paths = [...marks].map(([layer, all]) => `<path fill="${hue(layer)}" d="${[...all].join("")}"/>`);
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="what was read when, and where it is">${paths.join("\n")}</svg>`;
}

/** Where a mark begins and how long it is, in whole units. */
function span(start: number, length: number, whole: number, units: number): [start: number, length: number] {
  const from = Math.min(Math.floor((start / whole) * units), units - MARK);
  return [from, Math.max(MARK, Math.min(units, Math.ceil(((start + length) / whole) * units)) - from)];
}

function table(placed: readonly PlacedPart[], axis: Axis, readBytes: number): string {
  const rows = rowsOf(placed).toSorted((a, b) => b.bytes - a.bytes || a.firstAt - b.firstAt);
  const shown = rows.slice(0, MAX_ROWS).map(({ name, size, firstAt, bytes }) => {
    const ofFile = size === undefined ? "" : percent(Math.min(bytes, size), size);
    return `<tr><td>${byteText(bytes)}</td><td>${percent(bytes, readBytes)}</td><td>${ofFile}</td><td>${axis.text(firstAt)}</td><td>${name}</td></tr>`;
  });
  const more = rows.length > MAX_ROWS ? `<p>… and ${rows.length - MAX_ROWS} more files.</p>` : "";
  return `<table>
<thead><tr><th>read</th><th>share of all</th><th>of the file</th><th>first after</th><th>file</th></tr></thead>
<tbody>
${shown.join("\n")}
</tbody>
</table>
${more}`;
}

function rowsOf(placed: readonly PlacedPart[]): Row[] {
  const rows = new Map<TracedFile | string, Row>();
  for (const { part, from } of placed) {
    const key = part.kind === "file" ? part.file : part.kind;
    const row = rows.get(key) ?? { name: nameOf(part), size: part.kind === "file" ? part.file.size : undefined, firstAt: from, bytes: 0 };
    row.bytes += part.length;
    rows.set(key, row);
  }
  return [...rows.values()];
}

function nameOf(part: TracePart): string {
  if (part.kind === "file") return escape(pathText(part.file.path));
  return part.kind === "metadata" ? "<i>the file system's own</i>" : "<i>not shown by the device</i>";
}

function percent(part: number, whole: number): string {
  return `${((100 * part) / Math.max(whole, 1)).toFixed(1)} %`;
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
