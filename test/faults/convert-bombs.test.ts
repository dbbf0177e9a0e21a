import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { LazyError } from "../../src/errors.ts";
import { execute } from "../support/command.ts";
import { convertLayout } from "../support/convert.ts";
import { layerOf, layerOfTar, writeImage, type BuiltLayer } from "../support/image-builder.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "../support/programs.ts";
import { base256, tarArchive, tarHeader } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const MAX_RSS_MB = 400;
const PIECE = Buffer.alloc(16 << 20);
/** Runs a command and prints the most memory it took, in KiB. */
const MEASURE =
  "import resource,subprocess,sys; s=subprocess.call(sys.argv[1:], stdout=sys.stderr); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(s)";

let scratch: TemporaryDirectory;
before(async () => (scratch = await TemporaryDirectory.create()));
after(async () => await scratch[Symbol.asyncDispose]());

/** Converts an image of the layers with the command; gives the most memory that took, in MB. */
async function memoryOf(name: string, layers: readonly BuiltLayer[]): Promise<number> {
  await writeImage(scratch.join(`${name}-in`), "x", { layers });
  const args = ["convert", `oci:${scratch.join(`${name}-in`)}:x`, `oci:${scratch.join(`${name}-out`)}:x`];
  const { status, stdout, stderr } = await execute("python3", ["-c", MEASURE, LAZYLAYER, ...args], { env: CLEAN_ENVIRONMENT });
  assert.equal(status, 0, stderr);
  return Math.round(Number(stdout.toString()) / 1024);
}

/** `pieces` times 16 MiB of zeros behind what comes first, as one gzip layer of about a thousandth of that. */
function zeros(first: Uint8Array, pieces: number, last: Uint8Array): BuiltLayer {
  const packed = gzipSync(PIECE);
  const hash = createHash("sha256").update(first);
  for (let piece = 0; piece < pieces; piece++) hash.update(PIECE);
  const blob = Buffer.concat([gzipSync(first), ...Array.from({ length: pieces }, () => packed), gzipSync(last)]);
  return { blob, diffId: `sha256:${hash.update(last).digest("hex")}` as BuiltLayer["diffId"] };
}

async function refusal(name: string, layer: BuiltLayer): Promise<LazyError> {
  await writeImage(scratch.join(`${name}-in`), "x", { layers: [layer] });
  const failure: unknown = await convertLayout(scratch.join(`${name}-in`), "x", scratch.join(`${name}-out`)).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(failure instanceof LazyError, `${name}: ${String(failure)}`);
  assert.equal(existsSync(scratch.join(`${name}-out`)), false);
  return failure;
}

test("a gigabyte in a megabyte converts in bounded memory", async () => {
  const layer = zeros(tarHeader({ name: "zeros" }, 2 ** 30), 64, new Uint8Array(1024));
  assert.ok(layer.blob.length < 2_000_000);
  const megabytes = await memoryOf("zeros", [layer]);
  assert.ok(megabytes < MAX_RSS_MB, `${megabytes} MB`);
});

test("200,000 files convert in bounded memory", async () => {
  const parts: Uint8Array[] = [];
  for (let file = 0; file < 200_000; file++) {
    if (file % 500 === 0) parts.push(tarHeader({ name: `d${file / 500}/` }, 0));
    parts.push(tarHeader({ name: `d${Math.floor(file / 500)}/file-${file}` }, 0));
  }
  const megabytes = await memoryOf("files", [layerOfTar(Buffer.concat([...parts, new Uint8Array(1024)]))]);
  assert.ok(megabytes < MAX_RSS_MB, `${megabytes} MB`);
});

test("files of single bytes with holes between them convert in bounded memory", async () => {
  const count = 20_000;
  const extents = Array.from({ length: count }, (_, at) => ({ offset: at * 1_000_000, length: 1 }));
  const layer = layerOf([{ name: "sparse", data: Buffer.alloc(count, 1), sparse: { size: count * 1_000_000, extents } }]);
  const megabytes = await memoryOf("sparse", [layer]);
  assert.ok(megabytes < MAX_RSS_MB, `${megabytes} MB`);
});

test("120 layers convert in bounded memory", async () => {
  const layers = Array.from({ length: 120 }, (_, at) =>
    layerOf([
      { name: `layer-${at}`, data: `${at}` },
      { name: "same", data: `${at}` },
    ]),
  );
  const megabytes = await memoryOf("layers", layers);
  assert.ok(megabytes < MAX_RSS_MB, `${megabytes} MB`);
});

test("more layers than can be stacked are refused", async () => {
  const layer = layerOf([{ name: "x", data: "" }]);
  await writeImage(scratch.join("tall-in"), "x", { layers: Array.from({ length: 256 }, () => layer) });
  await assert.rejects(convertLayout(scratch.join("tall-in"), "x", scratch.join("tall-out")), {
    code: "UNSUPPORTED",
    message: /256 layers; at most 255/,
  });
});

test("headers of a gigabyte are refused before they are read", async () => {
  for (const typeflag of ["x", "g", "L", "K"]) {
    const header = tarHeader({ name: "header", raw: { typeflag, ...("LK".includes(typeflag) && { magic: "ustar  \0" }) } }, 2 ** 30);
    const error = await refusal(`header-${typeflag}`, zeros(header, 64, new Uint8Array(1024)));
    assert.match(error.message, /layer 0 .*tar header at 0/);
  }
});

test("sizes beyond all bounds are refused", async () => {
  const exbibytes = tarArchive([{ name: "huge", raw: { size: base256(2n ** 63n - 1n, 12) } }]);
  assert.equal((await refusal("huge", layerOfTar(exbibytes))).code, "CORRUPT");
  const hole = layerOf([{ name: "hole", data: "x", sparse: { size: 2 ** 53 - 1, extents: [{ offset: 2 ** 52, length: 1 }] } }]);
  assert.match((await refusal("hole", hole)).message, /hole/);
  const large = layerOf([{ name: "large", data: "", sparse: { size: 2 ** 46, extents: [] } }]);
  assert.match((await refusal("large", large)).message, /large/);
});

test("paths and attributes beyond what a filesystem takes are refused, those up to it are kept", async () => {
  const deep = layerOf([{ name: `${"d/".repeat(1500)}f`, data: "deep" }]);
  await writeImage(scratch.join("deep-in"), "x", { layers: [deep] });
  await convertLayout(scratch.join("deep-in"), "x", scratch.join("deep-out"));
  assert.match((await refusal("deeper", layerOf([{ name: `${"d/".repeat(2500)}f`, data: "" }]))).message, /bytes|long/);
  assert.match((await refusal("name", layerOf([{ name: "n".repeat(256), data: "" }]))).message, /255|256|long/);
  const xattrs = Object.fromEntries(Array.from({ length: 50 }, (_, at) => [`user.a${at}`, "v".repeat(20)]));
  await writeImage(scratch.join("xattrs-in"), "x", { layers: [layerOf([{ name: "f", data: "", xattrs }])] });
  await convertLayout(scratch.join("xattrs-in"), "x", scratch.join("xattrs-out"));
  const many = Object.fromEntries(Array.from({ length: 5000 }, (_, at) => [`user.attribute-${at}`, "v"]));
  assert.match((await refusal("many", layerOf([{ name: "f", data: "", xattrs: many }]))).message, /attribute|xattr/);
});

test("nothing of it is left in the temporary directory", () => {
  assert.deepEqual(
    readdirSync(scratch.path).filter((name) => name.endsWith(".work")),
    [],
  );
});
