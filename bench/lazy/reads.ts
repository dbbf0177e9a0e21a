import { closeSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../test/support/command.ts";
import type { MadeImage } from "../images/bench-images.ts";
import { conversionCommand, environmentOf, FORMATS, onStage, REPOSITORY, whileMounted, type Format } from "./places.ts";

const SEQUENTIAL_BYTES = 256 * 2 ** 20;
const RANDOM_READS = 400;
const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 1 << 20;

export interface ReadFigures {
  readonly format: Format;
  /** `cold`: nothing is on this machine yet; `warm`: the cache on disk has it, the kernel's page cache has not. */
  readonly state: "cold" | "warm";
  /** Of a large file, front to back. */
  readonly sequentialBytesPerSecond: number;
  /** Of 4 KiB in as many places of that file, one after the other, of which none was read before. */
  readonly randomReadsPerSecond: number;
}

/** Reads through the mount of an image, out of a registry on this machine. */
export async function measureReads(image: MadeImage, work: string, signal: AbortSignal): Promise<ReadFigures[]> {
  return await onStage(image, work, signal, async (stage) => {
    const [program, ...args] = conversionCommand(stage, FORMATS);
    await run(program, args, { env: environmentOf(stage), signal });
    const figures: ReadFigures[] = [];
    for (const format of FORMATS) {
      const place = `${stage.registry.host}/${REPOSITORY}:${format}`;
      for (const pass of ["random", "sequential"] as const) {
        const cache = join(stage.work, "cache");
        await rm(cache, { recursive: true, force: true });
        await mkdir(cache);
        for (const state of ["cold", "warm"] as const) {
          const speed = await whileMounted(stage, place, cache, (directory) => readFrom(largestFile(directory).path, pass));
          const known = figures.find((each) => each.format === format && each.state === state);
          const figure = pass === "random" ? { randomReadsPerSecond: speed } : { sequentialBytesPerSecond: speed };
          if (known) Object.assign(known, figure);
          else figures.push({ format, state, sequentialBytesPerSecond: 0, randomReadsPerSecond: 0, ...figure });
        }
      }
    }
    return figures;
  });
}

function readFrom(path: string, pass: "random" | "sequential"): number {
  const file = openSync(path, "r");
  try {
    const { size } = statSync(path);
    const start = performance.now();
    const units = pass === "random" ? readRandomly(file, size) : readThrough(file, Math.min(size, SEQUENTIAL_BYTES));
    return units / ((performance.now() - start) / 1000);
  } finally {
    closeSync(file);
  }
}

function readThrough(file: number, bytes: number): number {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  for (let at = 0; at < bytes; at += CHUNK_BYTES) readSync(file, chunk, 0, CHUNK_BYTES, at);
  return bytes;
}

/** The same places every time, spread over the file without order. */
function readRandomly(file: number, size: number): number {
  const block = Buffer.allocUnsafe(BLOCK_BYTES);
  const blocks = Math.floor(size / BLOCK_BYTES);
  let place = 12345;
  for (let read = 0; read < RANDOM_READS; read++) {
    place = (place * 1103515245 + 12345) % 2 ** 31;
    readSync(file, block, 0, BLOCK_BYTES, (place % blocks) * BLOCK_BYTES);
  }
  return RANDOM_READS;
}

interface FoundFile {
  readonly path: string;
  readonly size: number;
}

function largestFile(directory: string): FoundFile {
  let found: FoundFile = { path: "", size: 0 };
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    const size = entry.isFile() ? statSync(path).size : 0;
    const candidate = entry.isDirectory() ? largestFile(path) : { path, size };
    if (candidate.size > found.size) found = candidate;
  }
  return found;
}
