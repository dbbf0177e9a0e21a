import { join } from "node:path";
import { z } from "zod";
import { run } from "../../test/support/command.ts";
import { cpuSecondsOf, residentBytesOf } from "../measure/process-figures.ts";
import type { Disk } from "./disks.ts";
import { BIG_FILE } from "./images.ts";

const RANDOM_SECONDS = 4;
export const DEPTHS = [1, 16] as const;

/** `cold`: nothing is on this machine. `disk`: what is read is in files of which the page cache has nothing. `memory`: it has them. */
export const STATES = ["cold", "disk", "memory"] as const;
export type State = (typeof STATES)[number];

export interface ReadFigures {
  readonly way: string;
  readonly state: State;
  /**
   * Of the big file, front to back, through the page cache as programs read, each time anew. The first time is also that of whoever
   * serves the disk, and of the hypervisor, which has to find memory for pages that the guest did not use lately.
   */
  readonly sequential: SequentialFigures[];
  /** Of 4 KiB anywhere in it, past the page cache, at each of `DEPTHS`. */
  readonly randomReadsPerSecond: number[];
}

export interface SequentialFigures {
  readonly bytesPerSecond: number;
  /** Processor time of whoever serves the disk. */
  readonly cpuSecondsPerGigabyte: number;
}

const fioOutput = z.object({ jobs: z.array(z.object({ read: z.object({ bw_bytes: z.number(), iops: z.number() }) })).length(1) });

async function fio(disk: Disk, ...options: string[]): Promise<{ readonly bw_bytes: number; readonly iops: number }> {
  const file = join(disk.directory, BIG_FILE.name);
  const output = await run("fio", ["--name=reads", `--filename=${file}`, "--readonly", "--output-format=json", ...options]);
  return fioOutput.parse(JSON.parse(output.slice(output.indexOf("{")))).jobs[0].read;
}

export async function readSequentially(disk: Disk): Promise<SequentialFigures> {
  const before = await cpuSeconds(disk.pids);
  const { bw_bytes } = await fio(disk, "--rw=read", "--bs=1M", "--ioengine=psync", "--invalidate=1");
  const cpu = (await cpuSeconds(disk.pids)) - before;
  return { bytesPerSecond: bw_bytes, cpuSecondsPerGigabyte: cpu / (BIG_FILE.bytes / 1e9) };
}

export async function readRandomly(disk: Disk, depth: number): Promise<number> {
  const { iops } = await fio(
    disk,
    "--rw=randread",
    "--bs=4k",
    "--ioengine=libaio",
    "--direct=1",
    `--iodepth=${depth}`,
    "--time_based",
    `--runtime=${RANDOM_SECONDS}`,
  );
  return iops;
}

/** Makes the page cache forget what a disk is read from, or have all of it. */
export async function bring(disk: Disk, state: Exclude<State, "cold">): Promise<void> {
  for (const file of await disk.backing()) {
    if (state === "disk") await run("dd", [`of=${file}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
    else await run("dd", [`if=${file}`, "of=/dev/null", "bs=1M", "status=none"]);
  }
}

async function cpuSeconds(pids: readonly number[]): Promise<number> {
  return sum(await Promise.all(pids.map(cpuSecondsOf)));
}

export async function residentBytes(pids: readonly number[]): Promise<number> {
  return sum(await Promise.all(pids.map(residentBytesOf)));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
