import { mkdir, readFile, statfs, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { execute } from "../test/support/command.ts";
import { benchImage, diskNeed, IMAGE_NAMES, type ImageName, type MadeImage } from "./images/bench-images.ts";
import { floorLibraries } from "./measure/measured.ts";
import { findMissingPeers, measureRound, measureStages, readOnce, type Peer } from "./measure/round.ts";
import { benchResult, type BenchResult, type ImageResult } from "./report/result.ts";
import { comparisonTable, markdown, plainText, tablesOf } from "./report/tables.ts";

const ROOT = join(import.meta.dirname, "..");
const DIRECTORY = join(ROOT, ".work/bench");
const WORK = join(DIRECTORY, "work");
/** Peers that took longer together run in the first round only: nobody waits for the third figure of what others have made. */
const PATIENCE_SECONDS = 20;

const USAGE = `usage: npm run bench [-- OPTIONS]

  --images NAME,NAME   only these of ${IMAGE_NAMES.join(", ")}
  --runs N             rounds for each image (default: 3)
  --no-peers           neither skopeo nor umoci nor mkfs.ext4
  --stages             one more conversion of each image, under a profiler: where the time goes
  --json FILE          where every figure goes (default: .work/bench/TIME.json)
  --markdown           tables for a page, instead of for a terminal
  --compare FILE       how the figures differ from those of an earlier run
  --report FILE        measure nothing, print the tables of an earlier run`;

interface MeasureOptions {
  readonly images: readonly ImageName[];
  readonly runs: number;
  readonly peers: boolean;
  readonly stages: boolean;
}

interface Options extends MeasureOptions {
  readonly json: string | undefined;
  readonly markdown: boolean;
  readonly compare: string | undefined;
  readonly report: string | undefined;
}

const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => abort.abort(new Error(`stopped by ${name}`)));

const options = readOptions(process.argv.slice(2));
if (options === undefined) {
  console.error(USAGE);
  process.exitCode = 2;
} else {
  try {
    await bench(options);
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}

function readOptions(args: string[]): Options | undefined {
  try {
    const { values } = parseArgs({
      args,
      allowNegative: true,
      options: {
        images: { type: "string", default: IMAGE_NAMES.join(",") },
        runs: { type: "string", default: "3" },
        peers: { type: "boolean", default: true },
        stages: { type: "boolean", default: false },
        json: { type: "string" },
        markdown: { type: "boolean", default: false },
        compare: { type: "string" },
        report: { type: "string" },
      },
    });
    const wanted = values.images.split(",");
    const images = IMAGE_NAMES.filter((name) => wanted.includes(name));
    const runs = Number(values.runs);
    if (images.length !== new Set(wanted).size || !Number.isInteger(runs) || runs < 1) return undefined;
    return { ...values, images, runs, json: values.json, compare: values.compare, report: values.report };
  } catch {
    return undefined;
  }
}

async function bench({ json, compare, report, markdown: asMarkdown, ...measured }: Options): Promise<void> {
  const earlier = compare === undefined ? undefined : await readResult(compare);
  let result: BenchResult;
  if (report === undefined) {
    result = await measureAll(measured);
    const file = resolve(json ?? join(DIRECTORY, `${result.date.replaceAll(":", "-")}.json`));
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, `${JSON.stringify(result, undefined, 1)}\n`);
    say(`every figure: ${file}`);
  } else {
    result = await readResult(report);
  }
  const tables = tablesOf(result);
  if (earlier !== undefined) tables.push(comparisonTable(result, earlier));
  const { cpus: cores, model, programs } = result.machine;
  const about = `${result.commit}, ${result.date}, ${cores} cores (${model}), load ${result.load.map((load) => load.toFixed(1)).join(" to ")}`;
  console.log(`\n${about}\n${Object.values(programs).join("; ")}\n`);
  console.log(tables.map(asMarkdown ? markdown : plainText).join("\n"));
}

async function measureAll(options: MeasureOptions): Promise<BenchResult> {
  const { images: names, peers: withPeers } = options;
  const missing = await findMissingPeers();
  if (withPeers) for (const [peer, reason] of missing) say(`without ${peer}: ${reason}`);
  const directory = join(DIRECTORY, "images");
  await mkdir(directory, { recursive: true });
  await checkSpace(names, directory);
  const load = [loadavg()[0]];
  const results: ImageResult[] = [];
  for (const name of names) {
    const image = await benchImage(name, directory, { say, signal: abort.signal });
    results.push(await measureImage(image, options, new Set(missing.keys())));
  }
  load.push(loadavg()[0]);
  const commit = (await said("git", "-C", ROOT, "describe", "--always", "--dirty")) ?? "unknown commit";
  const skipped = withPeers ? Object.fromEntries(missing) : {};
  return {
    format: 1,
    date: new Date().toISOString().slice(0, 19),
    commit,
    machine: await machine(),
    load,
    missing: skipped,
    images: results,
  };
}

async function measureImage(image: MadeImage, { runs, peers, stages }: MeasureOptions, missing: ReadonlySet<Peer>): Promise<ImageResult> {
  await readOnce(image);
  const rounds: ImageResult["rounds"] = [];
  for (let at = 0; at < runs; at++) {
    const isTurn = Object.values(rounds[0]?.peers ?? {}).reduce((total, seconds) => total + seconds, 0) < PATIENCE_SECONDS;
    const sayStep = (step: string): void => say(`${image.name}, round ${at + 1} of ${runs}: ${step}`);
    rounds.push(await measureRound(image, WORK, { withPeers: peers && isTurn, missing, signal: abort.signal, say: sayStep }));
  }
  const result = { name: image.name, about: image.about, storedLayerBytes: image.layers.map((layer) => layer.size), rounds };
  if (!stages) return result;
  say(`${image.name}: stages`);
  return { ...result, stages: await measureStages(image, WORK, abort.signal) };
}

async function checkSpace(names: readonly ImageName[], directory: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const need = diskNeed(names, directory);
  if (bavail * bsize >= need) return;
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
  throw new Error(`${directory}: needs ${gigabytes(need)} of disk, has ${gigabytes(bavail * bsize)}: free some, or choose --images`);
}

async function machine(): Promise<BenchResult["machine"]> {
  const programs: Record<string, string> = { node: `node ${process.version}`, floor: await floorLibraries() };
  programs["registry"] = (await said("docker-registry", "--version")) ?? "docker-registry";
  programs["skopeo"] = (await said("skopeo", "--version")) ?? "no skopeo";
  programs["umoci"] = (await said("umoci", "--version")) ?? "no umoci";
  const version = (await execute("mkfs.ext4", ["-V"]).catch(() => undefined))?.stderr.split("\n")[0];
  programs["mkfs"] = version ?? "no mkfs.ext4";
  const [{ model }] = cpus();
  return { cpus: availableParallelism(), model, memoryBytes: totalmem(), kernel: release(), programs };
}

/** The first line that a program prints, or nothing when it fails. */
async function said(program: string, ...args: string[]): Promise<string | undefined> {
  const result = await execute(program, args).catch(() => undefined);
  return result?.status === 0 ? result.stdout.toString().split("\n")[0] : undefined;
}

async function readResult(file: string): Promise<BenchResult> {
  return benchResult.parse(JSON.parse(await readFile(file, "utf8")));
}

function say(message: string): void {
  console.error(`  ${message}`);
}
