import { mkdir } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchImage, IMAGE_NAMES, type ImageName } from "../images/bench-images.ts";
import { readOnce } from "../measure/round.ts";
import { reportResult } from "../report/report-result.ts";
import type { Table } from "../report/tables.ts";
import { measureColdStarts, type ColdStart } from "./cold-start.ts";
import { measureConversion, type ConversionFigures } from "./conversion.ts";
import { measureReads, type ReadFigures } from "./reads.ts";

const ROOT = join(import.meta.dirname, "../..");
const DIRECTORY = join(ROOT, ".work/bench");
const WORK = join(DIRECTORY, "work");

const USAGE = `usage: npm run bench:lazy [-- OPTIONS]

  --images NAME,NAME   convert these of ${IMAGE_NAMES.join(", ")} (default: debian,large,large-single)
  --runs N             rounds (default: 3)
  --only PARTS         of conversion, start, reads (default: all)
  --markdown           tables for a page, instead of for a terminal`;

interface LazyResult {
  readonly conversions: ConversionFigures[];
  readonly starts: ColdStart[];
  readonly reads: ReadFigures[];
}

const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => abort.abort(new Error(`stopped by ${name}`)));

const { values } = parseArgs({
  options: {
    images: { type: "string", default: "debian,large,large-single" },
    runs: { type: "string", default: "3" },
    only: { type: "string", default: "conversion,start,reads" },
    markdown: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const names = values.images.split(",").filter((name): name is ImageName => IMAGE_NAMES.some((known) => known === name));
if (values.help || names.length !== values.images.split(",").length) {
  console.error(USAGE);
  process.exitCode = 2;
} else {
  await bench(names, Number(values.runs), new Set(values.only.split(",")));
}

async function bench(images: readonly ImageName[], runs: number, parts: ReadonlySet<string>): Promise<void> {
  const result: LazyResult = { conversions: [], starts: [], reads: [] };
  const { signal } = abort;
  const options = { say, signal };
  const load = [loadavg()[0]];
  await mkdir(join(DIRECTORY, "images"), { recursive: true });
  for (const name of parts.has("conversion") ? images : []) {
    const image = await benchImage(name, join(DIRECTORY, "images"), options);
    await readOnce(image);
    for (let round = 1; round <= runs; round++) {
      say(`${name}: conversion, round ${round} of ${runs}`);
      result.conversions.push(await measureConversion(image, WORK, signal));
    }
  }
  const debian = await benchImage("debian", join(DIRECTORY, "images"), options);
  for (let round = 1; parts.has("start") && round <= runs; round++) {
    say(`debian: cold starts, round ${round} of ${runs}`);
    result.starts.push(...(await measureColdStarts(debian, WORK, signal)));
  }
  if (parts.has("reads")) {
    const large = await benchImage("large", join(DIRECTORY, "images"), options);
    for (let round = 1; round <= runs; round++) {
      say(`large: reads, round ${round} of ${runs}`);
      result.reads.push(...(await measureReads(large, WORK, signal)));
    }
  }
  load.push(loadavg()[0]);
  await reportResult(DIRECTORY, { name: "lazy", load, figures: result, tables: tablesOf(result), isPage: values.markdown, say });
}

function tablesOf({ conversions, starts, reads }: LazyResult): Table[] {
  return [conversionTable(conversions), startTable(starts), readTable(reads)].filter(({ rows }) => rows.length > 1);
}

function conversionTable(all: readonly ConversionFigures[]): Table {
  const header = [
    "image",
    "gzip",
    "tar",
    "kernel alone",
    "turboOCI",
    "speed / kernel's",
    "CPU / floor's wall",
    "memory",
    "blobs / gzip",
    "both forms",
  ];
  const rows = groups(all, ({ image }) => image).map((rounds) => [
    rounds[0].image,
    `${mega(rounds[0].storedBytes)} MB`,
    `${mega(rounds[0].tarBytes)} MB`,
    `${mega(middle(rounds, (each) => each.tarBytes / each.kernelSeconds))} MB/s`,
    `${mega(middle(rounds, (each) => each.tarBytes / each.turbo.wall))} MB/s`,
    middle(rounds, (each) => each.kernelSeconds / each.turbo.wall).toFixed(2),
    middle(rounds, (each) => each.turbo.cpu / each.floorSeconds).toFixed(2),
    `${mega(middle(rounds, ({ turbo }) => turbo.rss))} MB`,
    `${(100 * middle(rounds, (each) => each.turbo.bytes / each.storedBytes)).toFixed(1)} %`,
    `${middle(rounds, ({ both }) => both.wall).toFixed(1)} s`,
  ]);
  return { title: "Conversion to turboOCI, within a repository", rows: [header, ...rows] };
}

function startTable(all: readonly ColdStart[]): Table {
  const header = ["line", "how", "until the program has ended", "fetched", "requests"];
  const rows = groups(all, ({ megabytesPerSecond, way }) => `${megabytesPerSecond} ${way}`).map((rounds) => [
    `${rounds[0].megabytesPerSecond} MB/s, ${rounds[0].latencyMs} ms`,
    rounds[0].way,
    `${middle(rounds, ({ seconds }) => seconds).toFixed(2)} s`,
    `${(middle(rounds, ({ bytes }) => bytes) / 1e6).toFixed(1)} MB`,
    String(middle(rounds, ({ requests }) => requests)),
  ]);
  return { title: "From nothing to a program's end (Python, debian image)", rows: [header, ...rows] };
}

function readTable(all: readonly ReadFigures[]): Table {
  const header = ["form", "state", "front to back", "4 KiB anywhere"];
  const rows = groups(all, ({ format, state }) => `${format} ${state}`).map((rounds) => [
    rounds[0].format,
    rounds[0].state,
    `${mega(middle(rounds, (each) => each.sequentialBytesPerSecond))} MB/s`,
    `${middle(rounds, (each) => each.randomReadsPerSecond).toFixed(0)} reads/s`,
  ]);
  return { title: "Reads through the mount (large image, registry on the same machine)", rows: [header, ...rows] };
}

function groups<T>(all: readonly T[], key: (each: T) => string): T[][] {
  return [...Map.groupBy(all, key).values()];
}

function middle<T>(rounds: readonly T[], figure: (round: T) => number): number {
  const values = rounds.map(figure).toSorted((a, b) => a - b);
  return values[Math.floor(values.length / 2)];
}

function mega(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

function say(message: string): void {
  console.error(`  ${message}`);
}
