/**
 * How fast gzip is decoded, checksums included, beside C zlib: node bench/compression/inflate-bench.ts FILE.gz... [RUNS]
 *
 * Both sides hold the file in memory and feed it 1 MiB at a time; the start of their processes is not counted. What counts
 * is CPU time, of which others on the machine take none. They take turns, and the ratio is the median of the turns' ratios.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { GzipDecoder } from "../../src/compression/gzip-decoder.ts";
import { run } from "../../test/support/command.ts";

const CHUNK_BYTES = 1 << 20;
const DEFAULT_RUNS = 5;

const words = process.argv.slice(2);
const runs = /^\d+$/.test(words.at(-1) ?? "") ? Number(words.pop()) : DEFAULT_RUNS;
if (words.length === 0) {
  console.error("usage: node bench/compression/inflate-bench.ts FILE.gz... [RUNS]");
  process.exit(2);
}
for (const path of words) await compare(path);

async function compare(path: string): Promise<void> {
  const stored = await readFile(path);
  const ratios: number[] = [];
  const [own, theirs, indexed]: [number[], number[], number[]] = [[], [], []];
  let content = 0;
  decode(stored, false); // compiles the kernel; C zlib has a first time too
  for (let turn = 0; turn < runs; turn++) {
    const [bytes, seconds] = (await run("python3", [join(import.meta.dirname, "inflate.py"), path])).split(" ").map(Number);
    theirs.push(bytes / 1e6 / seconds);
    const start = cpuSeconds();
    content = decode(stored, false);
    const between = cpuSeconds();
    decode(stored, true);
    own.push(content / 1e6 / (between - start));
    indexed.push(content / 1e6 / (cpuSeconds() - between));
    if (bytes !== content) throw new Error(`${path}: C zlib gives ${bytes} bytes, we give ${content}`);
    ratios.push(own[turn] / theirs[turn]);
  }
  console.log(`${path}: ${(stored.length / 1e6).toFixed(1)} MB gzip, ${(content / 1e6).toFixed(1)} MB content`);
  console.log(`  C zlib              ${speed(theirs)}`);
  console.log(`  GzipDecoder         ${speed(own)}`);
  console.log(`  with access points  ${speed(indexed)} (every 1 MiB)`);
  console.log(`  GzipDecoder / zlib  ${median(ratios).toFixed(2)} (turn by turn, median of ${runs})`);
}

function decode(stored: Uint8Array, withPoints: boolean): number {
  using decoder = new GzipDecoder("bench", withPoints ? { span: 1 << 20, found: () => {} } : undefined);
  let total = 0;
  for (let at = 0; at < stored.length; at += CHUNK_BYTES) {
    decoder.push(stored.subarray(at, at + CHUNK_BYTES));
    for (let piece; (piece = decoder.next()) !== undefined;) total += piece.length;
  }
  decoder.close();
  return total;
}

function cpuSeconds(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1e6;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

function speed(values: readonly number[]): string {
  return `${String(Math.round(median(values))).padStart(4)} MB/s`;
}
