/**
 * node bench/convert/convert-bench.ts oci:DIRECTORY:TAG [RUNS]
 *
 * Converts an image from one OCI layout to another, and beside it, alternating in the same run, measures the floor: C zlib
 * inflating the same layers plus one SHA-256 of the result. Prints medians and their ratio.
 */
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { run } from "../../test/support/command.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";

const root = join(import.meta.dirname, "../..");
const usage = z.object({ wall: z.number(), cpu: z.number(), rss: z.number(), status: z.literal(0) });
type Usage = z.infer<typeof usage>;
const descriptor = z.object({ digest: z.string().regex(/^sha256:[0-9a-f]{64}$/), size: z.number() });
const index = z.object({ manifests: z.array(descriptor.extend({ annotations: z.record(z.string(), z.string()).optional() })) });
const manifest = z.object({ layers: z.array(descriptor) });

const [image, runs = "3"] = process.argv.slice(2);
const parts = /^oci:(.+):([^:/]+)$/.exec(image ?? "");
if (image === undefined || parts === null) {
  console.error("usage: node bench/convert/convert-bench.ts oci:DIRECTORY:TAG [RUNS]");
  process.exit(2);
}
const [, layout, tag] = parts;

await using scratch = await TemporaryDirectory.create();
const layers = await layersOf(layout, tag);
const tarBytes = Number(await run("python3", [join(import.meta.dirname, "floor.py"), ...layers.map((layer) => layer.path)]));
const floors: Usage[] = [];
const conversions: Usage[] = [];
let scratchPeak = 0;
for (let at = 0; at < Number(runs); at++) {
  floors.push(await measured(["python3", join(import.meta.dirname, "floor.py"), ...layers.map((layer) => layer.path)]));
  const output = join(scratch.path, "output");
  await rm(output, { recursive: true, force: true });
  const watch = watchScratch(scratch.path, (bytes) => (scratchPeak = Math.max(scratchPeak, bytes)));
  conversions.push(await measured([join(root, "bin/lazylayer"), "convert", image, `oci:${output}:converted`], { TMPDIR: scratch.path }));
  clearInterval(watch);
}
const converted = await layersOf(join(scratch.path, "output"), "converted");

const [floor, conversion] = [median(floors.map((one) => one.wall)), median(conversions.map((one) => one.wall))];
const storedBytes = sum(layers.map((layer) => layer.size));
const blobBytes = sum(converted.map((layer) => layer.size));
const rows: [string, string][] = [
  ["layers", `${layers.length}, ${mb(storedBytes)} stored, ${mb(tarBytes)} of tar`],
  ["conversion, wall", `${conversion.toFixed(2)} s, ${Math.round(tarBytes / 1e6 / conversion)} MB/s of tar`],
  ["conversion, CPU", `${median(conversions.map((one) => one.cpu)).toFixed(2)} s`],
  ["floor, wall", `${floor.toFixed(2)} s, ${Math.round(tarBytes / 1e6 / floor)} MB/s of tar`],
  [
    "conversion / floor",
    `${median(conversions.map((one, at) => one.wall / floors[at].wall)).toFixed(2)} (pair by pair, median of ${runs})`,
  ],
  ["peak memory", mb(Math.max(...conversions.map((one) => one.rss)))],
  ["scratch on disk", `${mb(scratchPeak)} at most`],
  ["converted blobs", `${mb(blobBytes)}, ${(blobBytes / storedBytes).toFixed(2)} of the stored layers`],
];
for (const [name, value] of rows) console.log(`${name.padEnd(20)}${value}`);

async function measured(command: readonly string[], variables: Readonly<Record<string, string>> = {}): Promise<Usage> {
  const output = await run("python3", [join(import.meta.dirname, "measure.py"), ...command], { env: variables });
  return usage.parse(JSON.parse(output));
}

async function layersOf(directory: string, name: string): Promise<{ path: string; size: number }[]> {
  const blob = (digest: string): string => join(directory, "blobs", digest.replace(":", "/"));
  const { manifests } = index.parse(JSON.parse(await readFile(join(directory, "index.json"), "utf8")));
  const entry = manifests.find(({ annotations }) => annotations?.["org.opencontainers.image.ref.name"] === name);
  if (entry === undefined) throw new Error(`${directory}: no image ${name}`);
  const { layers: found } = manifest.parse(JSON.parse(await readFile(blob(entry.digest), "utf8")));
  return found.map(({ digest, size }) => ({ path: blob(digest), size }));
}

/** Looks at what the conversion has on disk besides its result, a few times a second. */
function watchScratch(directory: string, seen: (bytes: number) => void): NodeJS.Timeout {
  return setInterval(() => {
    void scratchBytes(directory).then(seen, () => {});
  }, 100);
}

async function scratchBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || entry.parentPath.includes("/output")) continue;
    bytes += (await stat(join(entry.parentPath, entry.name))).blocks * 512;
  }
  return bytes;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function mb(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
