import { mkdir, readdir, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { run } from "../../test/support/command.ts";
import { DaemonBench } from "../../test/support/daemon-bench.ts";
import { LoopbackRegistry } from "../registry/loopback-registry.ts";
import { reportResult } from "../report/report-result.ts";
import { lazyDisk, nbdkitDisk, plainDisk, type Disk } from "./disks.ts";
import { benchConfigs, LAYER_COUNTS, type ImageConfigs, type LayerCount } from "./images.ts";
import { bring, DEPTHS, readRandomly, readSequentially, residentBytes, STATES, type ReadFigures, type State } from "./reads.ts";
import { tablesOf, type Memory, type Opening, type RuntimeResult } from "./runtime-tables.ts";

const ROOT = join(import.meta.dirname, "../..");
const DIRECTORY = join(ROOT, ".work/bench");
const WORK = join(DIRECTORY, "work");
/** How long a device has nothing to do before its memory is looked at. */
const IDLE_MS = 5_000;
/** Between two openings: the process for the next device is there by then. */
const PAUSE_MS = 1_000;
const MANY_DEVICES = 50;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "3" },
    only: { type: "string", default: "reads,open,memory,many" },
    ways: { type: "string", default: "plain,nbdkit,local,remote" },
    states: { type: "string", default: STATES.join(",") },
    markdown: { type: "boolean", default: false },
  },
});
/** One after the other, on the same device. */
const SEQUENTIAL_PASSES = 4;
const parts = new Set(values.only.split(","));

const say = (message: string): void => console.error(`  ${message}`);

/** Reads of one disk that is mounted for them, in each of the states. */
async function measureReads(way: string, states: readonly State[], open: (state: State) => Promise<Disk>): Promise<ReadFigures[]> {
  const figures: ReadFigures[] = [];
  for (const state of states) {
    const figure: ReadFigures = { way, state, sequential: [], randomReadsPerSecond: [] };
    const passes = state === "cold" ? 1 : SEQUENTIAL_PASSES;
    const measures = [
      ...Array.from({ length: passes }, () => async (disk: Disk) => void figure.sequential.push(await readSequentially(disk))),
      ...DEPTHS.map((depth) => async (disk: Disk) => void figure.randomReadsPerSecond.push(await readRandomly(disk, depth))),
    ];
    if (state === "cold") await measureCold(open, measures);
    else await measureWarm(state, open, measures);
    figures.push(figure);
  }
  return figures;
}

type Measure = (disk: Disk) => Promise<void>;

/** Each on a disk of which nothing has been read. */
async function measureCold(open: (state: State) => Promise<Disk>, measures: readonly Measure[]): Promise<void> {
  for (const measure of measures) {
    await using disk = await open("cold");
    await measure(disk);
  }
}

async function measureWarm(
  state: Exclude<State, "cold">,
  open: (state: State) => Promise<Disk>,
  measures: readonly Measure[],
): Promise<void> {
  await using disk = await open(state);
  for (const measure of measures) {
    await bring(disk, state);
    await measure(disk);
  }
}

async function readRound(bench: DaemonBench, { local, remote }: ImageConfigs): Promise<ReadFigures[]> {
  const image = bench.join("disk.img");
  const states = STATES.filter((state) => values.states.split(",").includes(state));
  const warm = states.filter((state) => state !== "cold");
  const ways: Readonly<Record<string, () => Promise<ReadFigures[]>>> = {
    plain: async () => await measureReads("plain", warm, async (state) => await plainDisk(image, bench.join("plain"), state === "disk")),
    nbdkit: async () => await measureReads("nbdkit", warm, async (state) => await nbdkitDisk(image, bench.join(), state === "disk")),
    local: async () => await measureReads("local", warm, async () => await lazyDisk(bench, local)),
    remote: async () =>
      await measureReads("remote", states, async (state) => {
        if (state === "cold") await emptyCache(bench);
        return await lazyDisk(bench, remote);
      }),
  };
  const figures: ReadFigures[] = [];
  for (const way of values.ways.split(",")) figures.push(...(await ways[way]()));
  return figures;
}

async function emptyCache(bench: DaemonBench): Promise<void> {
  for (const name of await readdir(bench.join("cache")).catch(() => [])) await rm(bench.join("cache", name));
}

/** What a client of the daemon waits for a device of an image that nothing is known of, when it is not the second within a second. */
async function openingRound(bench: DaemonBench, configs: ReadonlyMap<LayerCount, ImageConfigs>): Promise<Opening[]> {
  const openings: Opening[] = [];
  for (const layers of LAYER_COUNTS) {
    for (const place of ["local", "remote"] as const) {
      await emptyCache(bench);
      await sleep(PAUSE_MS);
      const start = performance.now();
      await bench.create({ id: "opened", config: configs.get(layers)![place] });
      openings.push({ layers, place, milliseconds: performance.now() - start });
      await bench.remove("opened");
    }
  }
  return openings;
}

async function memoryRound(bench: DaemonBench, configs: ImageConfigs): Promise<Memory[]> {
  const memory: Memory[] = [];
  for (const place of ["local", "remote"] as const) {
    await using disk = await lazyDisk(bench, configs[place]);
    await sleep(IDLE_MS);
    const idleBytes = await residentBytes(disk.pids);
    for (let pass = 0; pass < 2; pass++) await readSequentially(disk);
    for (const depth of DEPTHS) await readRandomly(disk, depth);
    memory.push({ place, idleBytes, busyBytes: await residentBytes(disk.pids) });
  }
  return memory;
}

/** Memory of a device process when there are many of them: shared pages count where they are. */
async function manyDevices(bench: DaemonBench, { local }: ImageConfigs): Promise<RuntimeResult["many"]> {
  const pids: number[] = [];
  const ids = Array.from({ length: MANY_DEVICES }, (_, device) => `many-${device}`);
  const start = performance.now();
  for (const id of ids) pids.push((await bench.create({ id, config: local })).pid!);
  const seconds = (performance.now() - start) / 1000;
  await sleep(IDLE_MS);
  const residentTotal = await residentBytes(pids);
  let proportionalTotal = 0;
  for (const pid of pids) {
    const rollup = await run("cat", [`/proc/${pid}/smaps_rollup`]);
    proportionalTotal += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1]) * 1024;
  }
  for (const id of ids) await bench.remove(id);
  return { devices: MANY_DEVICES, seconds, residentTotal, proportionalTotal };
}

await rm(WORK, { recursive: true, force: true });
await mkdir(WORK, { recursive: true });
try {
  const load = [loadavg()[0]];
  await using registry = await LoopbackRegistry.start(join(WORK, "registry"));
  say("images");
  const configs = await benchConfigs(DIRECTORY, registry.host);
  const ten = configs.get(10)!;
  await using bench = await DaemonBench.start();
  if (parts.has("reads")) {
    await using disk = await lazyDisk(bench, ten.local);
    const source = (await run("findmnt", ["--noheadings", "--output", "SOURCE", disk.directory])).trim();
    await run("dd", [`if=${source}`, `of=${bench.join("disk.img")}`, "bs=1M", "status=none"]);
  }
  const result: RuntimeResult = { reads: [], openings: [], memory: [], many: undefined };
  for (let round = 1; round <= Number(values.runs); round++) {
    say(`round ${round} of ${values.runs}`);
    if (parts.has("reads")) result.reads.push(...(await readRound(bench, ten)));
    if (parts.has("open")) result.openings.push(...(await openingRound(bench, configs)));
    if (parts.has("memory")) result.memory.push(...(await memoryRound(bench, ten)));
  }
  if (parts.has("many")) result.many = await manyDevices(bench, ten);
  load.push(loadavg()[0]);
  await reportResult(DIRECTORY, { name: "runtime", load, figures: result, tables: tablesOf(result), isPage: values.markdown, say });
} finally {
  await rm(WORK, { recursive: true, force: true });
}
