/**
 * node bench/compression/lz4-bench.ts [FILE [RUNS]]
 *
 * The LZ4 kernel on blocks of 4 KiB, beside C liblz4 on the same blocks, alternating in the same run; CPU time of one thread.
 * Without FILE the blocks are of a tar of /usr/lib and /usr/share, a MiB of every 20 up to 200. Needs gcc and liblz4-dev.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { createInterface } from "node:readline";
import { run } from "../../test/support/command.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { compressBlocks, decodeBlocks, type CompressedBatch } from "../../src/compression/block-codec.ts";
import { Lz4Kernel } from "../../src/compression/lz4.ts";

const BLOCK_BYTES = 4096;
const PIECE_BYTES = 1 << 20;
const MAX_PIECES = 200;
const KEPT_OF = 20;

await using scratch = await TemporaryDirectory.create();
const [file = await makeMix(), runs = "9"] = process.argv.slice(2);
const pieces = await readPieces(file);
const plainBytes = pieces.length * PIECE_BYTES;
if (plainBytes === 0) throw new Error(`${file}: no whole MiB to measure with`);

const kernel = Lz4Kernel.ofThread();
const reused = new ArrayBuffer(2 * PIECE_BYTES);
const output = new Uint8Array(PIECE_BYTES);
const batches = pieces.map((piece) => compressBlocks("lz4", piece, BLOCK_BYTES));
const floor = await startFloor();
const rows: [name: string, work: "compress" | "decompress", once: () => number][] = [
  ["compress with CRC, the kernel alone", "compress", compressInPlace],
  ["compressBlocks", "compress", () => timed(() => pieces.forEach((piece) => compressBlocks("lz4", piece, BLOCK_BYTES, reused)))],
  ["decodeBlocks, CRC checked", "decompress", () => timed(() => batches.forEach((batch) => decode(batch, true)))],
  ["decodeBlocks, CRC not looked at", "decompress", decodeUnchecked()],
];
for (const [, , work] of rows) work();
const seconds = rows.map((): { ours: number; floor: number }[] => []);
for (let at = 0; at < Number(runs); at++) {
  for (const [row, [, work, ours]] of rows.entries()) seconds[row].push({ ours: ours(), floor: await floor.ask(work) });
}

const storedBytes = batches.reduce((total, { bytes }) => total + bytes.length, 0);
console.log(`${mb(plainBytes)} in blocks of ${BLOCK_BYTES}, stored in ${mb(storedBytes)}; medians (quartiles) of ${runs} alternating runs`);
for (const [row, [name]] of rows.entries()) {
  const ours = plainBytes / median(seconds[row].map((one) => one.ours));
  const beside = plainBytes / median(seconds[row].map((one) => one.floor));
  const ratios = seconds[row].map((one) => one.floor / one.ours);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(ratios, part).toFixed(3));
  console.log(`${name.padEnd(40)}${mb(ours)}/s  liblz4 ${mb(beside)}/s  ${middle} of liblz4 (${low}–${high})`);
}
floor.end();

/** Only the kernel's call and the copy of its result are counted: a producer gathers its input there. */
function compressInPlace(): number {
  let total = 0;
  for (const piece of pieces) {
    kernel.plain.set(piece);
    total += timed(() => kernel.compress(PIECE_BYTES, BLOCK_BYTES));
  }
  return total;
}

function decode({ bytes, storedBytes: sizes }: CompressedBatch, verify: boolean): void {
  const offsets = new Float64Array(sizes.length + 1);
  for (const [block, size] of sizes.entries()) offsets[block + 1] = offsets[block] + size;
  const whereIs = (block: number): string => `block ${block}`;
  decodeBlocks({ algorithm: "lz4", blockSize: BLOCK_BYTES, lastBytes: BLOCK_BYTES, verify, bytes, offsets, whereIs }, 0, output);
}

/** The same blocks as a file without sums has them. */
function decodeUnchecked(): () => number {
  const bare = batches.map(({ bytes, storedBytes: sizes }): CompressedBatch => {
    const codes: Uint8Array[] = [];
    let at = 0;
    for (const size of sizes) {
      codes.push(bytes.subarray(at, at + size - 4));
      at += size;
    }
    return { bytes: new Uint8Array(Buffer.concat(codes)), storedBytes: sizes.map((size) => size - 4) };
  });
  return () => timed(() => bare.forEach((batch) => decode(batch, false)));
}

/** CPU seconds of this thread. */
function timed(work: () => unknown): number {
  const before = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1e6;
}

async function startFloor(): Promise<{ ask: (work: string) => Promise<number>; end: () => void }> {
  const program = scratch.join("lz4-floor");
  try {
    await run("gcc", ["-O2", "-o", program, `${import.meta.dirname}/lz4-floor.c`, "-llz4"]);
  } catch (cause) {
    throw new Error("nothing to measure beside: needs gcc and liblz4's header (Debian: gcc, liblz4-dev)", { cause });
  }
  const child = spawn(program, [file, String(plainBytes), String(BLOCK_BYTES)], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (work: string): Promise<number> => {
    child.stdin.write(`${work}\n`);
    const { value, done } = await lines.next();
    if (done === true) throw new Error("lz4-floor ended");
    return Number(value);
  };
  await ask("compress"); // fills what the first decompression reads
  return { ask, end: () => child.stdin.end() };
}

/** A part of what lies in /usr, of every kind. */
async function makeMix(): Promise<string> {
  const path = scratch.join("mix");
  const mix = createWriteStream(path);
  const tar = spawn("tar", ["-cf", "-", "/usr/lib", "/usr/share"], { stdio: ["ignore", "pipe", "ignore"] });
  let [seen, kept] = [0, 0];
  for await (const chunk of tar.stdout as AsyncIterable<Buffer>) {
    if (Math.floor(seen / PIECE_BYTES) % KEPT_OF === 0) {
      kept += chunk.length;
      if (!mix.write(chunk)) await once(mix, "drain");
    }
    seen += chunk.length;
    if (kept >= MAX_PIECES * PIECE_BYTES) break;
  }
  tar.kill();
  mix.end();
  await once(mix, "finish");
  return path;
}

async function readPieces(path: string): Promise<Buffer[]> {
  const count = Math.min(MAX_PIECES, Math.floor((await stat(path)).size / PIECE_BYTES));
  await using handle = await open(path);
  return await Promise.all(
    Array.from({ length: count }, async (_, at) => (await handle.read(Buffer.alloc(PIECE_BYTES), 0, PIECE_BYTES, at * PIECE_BYTES)).buffer),
  );
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * part)];
}

function mb(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}
