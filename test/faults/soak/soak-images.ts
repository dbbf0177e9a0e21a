import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { digestOf, type Digest } from "../../../src/oci/digest.ts";
import { noise } from "../../journeys/turbo-support.ts";
import { run } from "../../support/command.ts";
import { tarArchive } from "../../support/tar-builder.ts";
import { openAccess } from "./block-access.ts";
import { sectorBytes, SECTOR_BYTES, SectorModel } from "./sector-model.ts";
import type { SoakBench } from "./soak-bench.ts";

const BIN = join(import.meta.dirname, "../../../bin");
const REPOSITORY = "soak/blobs";
/** The front of a device, where everything happens; the rest of its GiB stays empty. */
const FRONT_SECTORS = (32 << 20) / SECTOR_BYTES;
const PIECE_SECTORS = 64;

/** An image's lower layers as configurations name them. */
export interface LowerImage {
  readonly repoBlobUrl: string;
  readonly lowers: readonly object[];
}

/** Runs one of the tools for layers. */
async function tool(name: string, ...args: string[]): Promise<void> {
  await run(join(BIN, name), args, { env: { LAZYLAYER_NODE: process.execPath } });
}

export type UpperForm = "append" | "sparse";

/** Makes a writable layer of a GiB, or as large as what is below it. */
export async function createUpper(
  path: string,
  form: UpperForm,
  size: "1" | "0",
  ...flags: string[]
): Promise<{ data: string; index: string }> {
  const upper = { data: `${path}.data`, index: `${path}.index` };
  await tool("overlaybd-create", upper.data, upper.index, size, ...(form === "sparse" ? ["-s"] : []), ...flags);
  return upper;
}

/** A device of blocks, and what is in it at first. */
export interface BlockImage extends LowerImage {
  model(): SectorModel;
}

/** A device of two layers, the second of which lies scattered on the first: in a registry and in files. And one of none. */
export interface BlockImages {
  readonly remote: BlockImage;
  readonly local: BlockImage;
  readonly none: BlockImage;
}

/** Writes the layers through the daemon, commits them, and pushes them. */
export async function buildBlockImages(bench: SoakBench): Promise<BlockImages> {
  const layers = [0, 1].map(layerVersions);
  const [remote, local]: object[][] = [[], []];
  for (const [layer, versions] of layers.entries()) {
    const path = bench.daemon.join(`base${layer}`);
    const upper = await createUpper(path, "append", layer === 0 ? "1" : "0");
    await writeLayer(bench, { lowers: local, upper }, versions);
    await tool("overlaybd-commit", "-z", "-t", upper.data, upper.index, path);
    remote.push(await push(bench, await readFile(path)));
    local.push({ file: path });
  }
  const shown = layers[0].map((version, sector) => layers[1][sector] || version);
  const model = (): SectorModel => new SectorModel(shown.slice());
  return {
    remote: { repoBlobUrl: urlOf(bench), lowers: remote, model },
    local: { repoBlobUrl: "", lowers: local, model },
    none: { repoBlobUrl: "", lowers: [], model: () => new SectorModel(new Uint32Array(FRONT_SECTORS)) },
  };
}

/** 0 where the layer has nothing. */
function layerVersions(layer: number): Uint32Array {
  return Uint32Array.from({ length: FRONT_SECTORS }, (_, sector) => {
    const piece = Math.floor(sector / PIECE_SECTORS);
    if (layer === 1) return (sector >> 4) % 7 === 0 ? 3 : 0;
    return piece % 5 === 4 ? 0 : piece % 3 === 0 ? 2 : 1;
  });
}

async function writeLayer(bench: SoakBench, image: object, versions: Uint32Array): Promise<void> {
  const config = bench.daemon.join("base.json");
  await writeFile(config, JSON.stringify(image));
  const { access } = await bench.present({ id: "base", config, expose: { kind: "nbd" } });
  const device = await openAccess(access!, false);
  for (let first = 0, end = 0; first < versions.length; first = end) {
    for (end = first + 1; end < versions.length && versions[end] === versions[first];) end++;
    for (let at = first; versions[first] !== 0 && at < end; at += 1024) {
      await device.write(at * SECTOR_BYTES, sectorBytes(versions[first], at, Math.min(1024, end - at)), false);
    }
  }
  await device.flush();
  await device.close();
  await bench.gone("base");
}

function urlOf(bench: SoakBench): string {
  return `http://${bench.proxy.host}/v2/${REPOSITORY}`;
}

async function push(bench: SoakBench, blob: Buffer): Promise<{ digest: Digest; size: number; dir: string }> {
  const digest = digestOf(blob);
  const base = `http://${bench.registry.host}/v2/${REPOSITORY}`;
  const { headers } = await fetch(`${base}/uploads/`, { method: "POST" });
  const place = new URL(headers.get("location") ?? "", base);
  place.searchParams.set("digest", digest);
  const { status } = await fetch(place, { method: "PUT", body: new Uint8Array(blob) });
  if (status !== 201) throw new Error(`pushing ${digest}: status ${status}`);
  return { digest, size: blob.length, dir: "" };
}

/** A turboOCI image: files that stay in a compressed tar, which is in a registry. */
export interface FileImage {
  readonly image: LowerImage;
  /** Of the tar. Nothing vouches for its bytes but gzip itself. */
  readonly target: Digest;
  readonly files: ReadonlyMap<string, Buffer>;
}

export async function buildFileImage(bench: SoakBench): Promise<FileImage> {
  const files = new Map(Array.from({ length: 24 }, (_, i) => [`d/file${i}`, noise(`file ${i}`, 300_000 + 12_345 * i)]));
  const tar = bench.daemon.join("turbo.tar.gz");
  const members = [{ name: "d/" }, ...[...files].map(([name, data]) => ({ name, data }))];
  await writeFile(tar, gzipSync(tarArchive(members), { level: 1 }));
  const upper = await createUpper(bench.daemon.join("turbo"), "append", "1", "--turboOCI", "--mkfs");
  const config = bench.daemon.join("turbo-make.json");
  await writeFile(config, JSON.stringify({ lowers: [], upper: { ...upper, target: tar } }));
  const [gzipIndex, file] = [bench.daemon.join("turbo.gzip.meta"), bench.daemon.join("turbo.fs.meta")];
  await tool("turboOCI-apply", tar, config, "--gz_index_path", gzipIndex);
  await tool("overlaybd-commit", upper.data, upper.index, file, "-z", "--turboOCI");
  const { digest } = await push(bench, await readFile(tar));
  return { image: { repoBlobUrl: urlOf(bench), lowers: [{ file, targetDigest: digest, gzipIndex }] }, target: digest, files };
}
