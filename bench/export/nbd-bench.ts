import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { execute, run } from "../../test/support/command.ts";
import { layerOf, writeImage } from "../../test/support/image-builder.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "../../test/support/programs.ts";
import { startServing } from "../../test/support/serving.ts";
import { halfNoise } from "../images/half-noise.ts";
import { cpuSecondsOf, residentBytesOf } from "../measure/process-figures.ts";
import { markdown, plainText } from "../report/tables.ts";

const ROOT = join(import.meta.dirname, "../..");
const WORK = join(ROOT, ".work/bench/nbd");
const QEMU_SERVER = "qemu-nbd";
const MIB = 2 ** 20;
const FILE_BYTES = 512 * MIB;
/** Behind the filesystem's own blocks; the file goes on from here to its end. */
const REGION = { offset: 64 * MIB, size: 384 * MIB };
const DEPTHS = [1, 16] as const;
/** Each read is so far behind the one before it: no reader ahead of it helps. */
const STRIDE_BYTES = 257 * 4096;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "3" },
    reads: { type: "string", default: "100000" },
    markdown: { type: "boolean", default: false },
  },
});

interface Served extends AsyncDisposable {
  readonly socket: string;
  readonly pid: number;
}

interface Figures {
  readonly server: string;
  readonly bytesPerSecond: number;
  readonly readsPerSecond: readonly number[];
  readonly cpuSecondsPerGigabyte: number;
  readonly residentBytes: number;
}

async function makeImage(): Promise<string> {
  const image = `oci:${join(WORK, "converted")}:v1`;
  await writeImage(join(WORK, "source"), "v1", { layers: [layerOf([{ name: "big", data: halfNoise(FILE_BYTES) }])] });
  await run(LAZYLAYER, ["convert", "--vsize", "1", `oci:${join(WORK, "source")}:v1`, image], { env: CLEAN_ENVIRONMENT });
  return image;
}

async function serveLazily(image: string): Promise<Served> {
  const socket = join(WORK, "lazylayer.sock");
  const serving = await startServing(image, join(WORK, "cache"), "--nbd", `unix:${socket}`);
  return { socket, pid: serving.pid, [Symbol.asyncDispose]: async () => void (await serving.end("SIGTERM")) };
}

/** The same bytes, from a plain file, by QEMU's own server. */
async function servePlainly(): Promise<Served> {
  const socket = join(WORK, "qemu.sock");
  const args = ["--read-only", "--format=raw", "--persistent", "--shared=8", `--socket=${socket}`, join(WORK, "disk.img")];
  const child: ChildProcess = spawn(QEMU_SERVER, args, { stdio: "ignore" });
  while ((await execute("nbdinfo", ["--size", uriOf(socket)])).status !== 0) {
    if (child.exitCode !== null) throw new Error("qemu-nbd does not start");
  }
  const stop = async (): Promise<void> => {
    child.kill();
    await once(child, "exit");
  };
  return { socket, pid: child.pid!, [Symbol.asyncDispose]: stop };
}

function uriOf(socket: string): string {
  return `nbd+unix:///?socket=${socket}`;
}

async function measure(server: string, { socket, pid }: Served): Promise<Figures> {
  await run("nbdcopy", [uriOf(socket), "null:"]); // everything is cached from here on
  const cpuBefore = await cpuSecondsOf(pid);
  const copying = await secondsOf(["nbdcopy", uriOf(socket), "null:"]);
  const cpu = (await cpuSecondsOf(pid)) - cpuBefore;
  const readsPerSecond: number[] = [];
  for (const depth of DEPTHS) {
    const source = `driver=raw,offset=${REGION.offset},size=${REGION.size},file.driver=nbd,file.path=${socket}`;
    const command = ["qemu-img", "bench", "-t", "none", "-c", values.reads, "-d", String(depth), "-s", "4096", "-S", String(STRIDE_BYTES)];
    readsPerSecond.push(Number(values.reads) / (await secondsOf([...command, "--image-opts", source])));
  }
  const residentBytes = await residentBytesOf(pid);
  return { server, bytesPerSecond: FILE_BYTES / copying, readsPerSecond, cpuSecondsPerGigabyte: cpu / (FILE_BYTES / 1e9), residentBytes };
}

async function secondsOf([program, ...args]: readonly string[]): Promise<number> {
  const start = performance.now();
  await run(program, args);
  return (performance.now() - start) / 1000;
}

function middle(all: readonly number[]): number {
  return all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)];
}

function row(rounds: readonly Figures[]): string[] {
  const of = (figure: (each: Figures) => number): number => middle(rounds.map(figure));
  return [
    rounds[0].server,
    `${(of((each) => each.bytesPerSecond) / 1e6).toFixed(0)} MB/s`,
    ...DEPTHS.map((_, index) => `${(of((each) => each.readsPerSecond[index]) / 1000).toFixed(1)}k`),
    `${of((each) => each.cpuSecondsPerGigabyte).toFixed(2)} s`,
    `${(of((each) => each.residentBytes) / 1e6).toFixed(0)} MB`,
  ];
}

await rm(WORK, { recursive: true, force: true });
await mkdir(WORK, { recursive: true });
try {
  const load = [loadavg()[0]];
  const image = await makeImage();
  const figures: Figures[] = [];
  for (let round = 1; round <= Number(values.runs); round++) {
    console.error(`  round ${round} of ${values.runs}`);
    await using lazy = await serveLazily(image);
    if (round === 1) await run("nbdcopy", [uriOf(lazy.socket), join(WORK, "disk.img")]);
    figures.push(await measure("lazylayer serve, cached on disk", lazy));
    await using plain = await servePlainly();
    figures.push(await measure("qemu-nbd, the disk as a file", plain));
  }
  load.push(loadavg()[0]);
  const commit = execFileSync("git", ["-C", ROOT, "describe", "--always", "--dirty"], { encoding: "utf8" }).trim();
  const header = ["server", "nbdcopy", ...DEPTHS.map((depth) => `4 KiB reads/s, depth ${depth}`), "CPU per GB", "memory"];
  const rows = [header, ...[...Map.groupBy(figures, ({ server }) => server).values()].map(row)];
  console.log(`\n${commit}, load ${load.map((each) => each.toFixed(1)).join(" to ")}\n`);
  console.log((values.markdown ? markdown : plainText)({ title: "A disk over NBD, through a unix socket", rows }));
} finally {
  await rm(WORK, { recursive: true, force: true });
}
