import { writeFile } from "node:fs/promises";
import { readPrefetchFile } from "../device/prefetch-file.ts";
import { TraceMap, type TracePart } from "../device/prefetch-map.ts";
import { LazyError } from "../errors.ts";
import { TARGET_LAYERS, type TraceRecord } from "../formats/trace/layout.ts";
import type { Environment } from "./environment.ts";
import { withFilesystem } from "./image-files.ts";
import { pathText } from "./path-text.ts";
import { checkWritable } from "./trace-file.ts";
import { readTimes } from "./trace-times.ts";
import { tracePage } from "./trace-page.ts";

const LINES_AT_ONCE = 1000;

export interface ShowOptions {
  readonly html?: string;
  readonly times?: string;
}

/** Prints what a file names, or writes the page about it. */
export async function showTrace(path: string, image: string | undefined, options: ShowOptions, environment: Environment): Promise<void> {
  const { html, times, ...readOptions } = options;
  if (times !== undefined && html === undefined) throw new LazyError("USAGE", "--times is for the page that --html writes");
  if (html !== undefined && image === undefined) throw new LazyError("USAGE", "--html needs the image that the trace was recorded of");
  const file = await readPrefetchFile(path);
  if (file.kind === "list") {
    if (image !== undefined) throw new LazyError("USAGE", `${path}: is a list of paths: what it names is known without the image`);
    printLines(
      file.paths.map(({ path: named, isDirectory }) => `/${pathText(named)}${isDirectory && named !== "" ? "/" : ""}`),
      environment,
    );
    return;
  }
  const { records } = file;
  if (image === undefined) {
    printLines(records.map(recordLine), environment);
    return;
  }
  const timesMs = times === undefined ? undefined : await readTimes(times, records.length);
  const page = html === undefined ? undefined : await checkWritable(html);
  await withFilesystem(image, readOptions, environment, async (filesystem, device) => {
    const map = await TraceMap.open(device, filesystem);
    const parts = records.map((record) => (record.op === "read" ? map.partsOf(record) : []));
    if (page === undefined)
      printLines(
        parts.flatMap((all, index) => partLines(records[index], index, all)),
        environment,
      );
    else await writeFile(page, tracePage({ image, layers: device.layerCount, map, records, parts, timesMs }));
  });
}

function printLines(lines: readonly string[], { stdout, signal }: Environment): void {
  for (let at = 0; at < lines.length; at += LINES_AT_ONCE) {
    signal.throwIfAborted();
    stdout.write(`${lines.slice(at, at + LINES_AT_ONCE).join("\n")}\n`);
  }
}

function recordLine({ op, layer, offset, length }: TraceRecord, index: number): string {
  return [index, layerText(layer), offset, length, ...(op === "read" ? [] : [op])].join("\t");
}

function partLines({ layer, offset }: TraceRecord, index: number, parts: readonly TracePart[]): string[] {
  let at = offset;
  return parts.map((part) => {
    const line = [index, layerText(layer), at, part.length, partText(part)].join("\t");
    at += part.length;
    return line;
  });
}

function partText(part: TracePart): string {
  if (part.kind === "file") return pathText(part.file.path);
  return part.kind === "metadata" ? "(file system)" : "(not shown)";
}

function layerText(layer: number): string {
  return layer >= TARGET_LAYERS ? `${layer - TARGET_LAYERS}.data` : String(layer);
}
