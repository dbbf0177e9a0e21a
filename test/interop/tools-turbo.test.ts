import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { createApplyTool } from "../../src/cli/tools/overlaybd-apply.ts";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { createCreateTool } from "../../src/cli/tools/overlaybd-create.ts";
import { createMergeTool } from "../../src/cli/tools/overlaybd-merge.ts";
import { createZFileTool } from "../../src/cli/tools/overlaybd-zfile.ts";
import type { CreateTool } from "../../src/cli/tools/tool.ts";
import { createTurboApplyTool } from "../../src/cli/tools/turbo-oci-apply.ts";
import { openImageConfig } from "../../src/device/image-config.ts";
import { imageConfigSchema } from "../../src/device/image-config-schema.ts";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseConfig } from "../../src/oci/config.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { OCI_LAYER_GZIP, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { compareTrees } from "../../src/verify/compare-trees.ts";
import { readConvertedTree } from "../../src/verify/converted-tree.ts";
import { readSourceTree } from "../../src/verify/source-tree.ts";
import { runTool } from "../journeys/tools-support.ts";
import { load } from "../support/recorded-tree.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { baseLayer, recordedTarget } from "../support/turbo-image.ts";

interface Lower {
  readonly file: string;
  readonly targetFile?: string;
  readonly gzipIndex?: string;
}

async function succeed(create: CreateTool, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runTool(create, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function openImage(lowers: readonly Lower[]): Promise<ByteSource> {
  const openRemote = async (): Promise<never> => await Promise.reject(new Error("nothing is remote"));
  return (
    await openImageConfig(imageConfigSchema.parse({ lowers }), { openRemote, cache: undefined, gzipCache: undefined, notice: assert.fail })
  ).device;
}

async function baseFile(scratch: TemporaryDirectory): Promise<Lower> {
  await writeFile(scratch.join("ext4_64"), baseLayer());
  return { file: scratch.join("ext4_64") };
}

/** The device's tree is the one that the recorded layers stand for, as the image specification says. Closes the device. */
async function assertTree(device: ByteSource, ofErofs = false): Promise<void> {
  await using scratch = await TemporaryDirectory.create();
  const store = await openLayoutStore(scratch.join("source"), { create: true });
  const blobs = [0, 1, 2].map((layer) => recordedTarget(layer, ofErofs)[0]);
  const layers = [];
  for (const blob of blobs) {
    const descriptor = { mediaType: OCI_LAYER_GZIP, digest: digestOf(blob), size: blob.length };
    await store.putBlob(descriptor, new MemorySource(blob));
    layers.push(descriptor);
  }
  const diffIds = blobs.map((blob) => digestOf(gunzipSync(blob)));
  const config = parseConfig(
    Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: diffIds } })),
    "config",
  );
  const manifest = parseManifest(
    Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: layers[0], layers })),
    OCI_MANIFEST,
    "manifest",
  );
  const { signal } = new AbortController();
  const source = await readSourceTree(store, manifest, config, signal, () => {});
  const found = await readConvertedTree(device, signal, () => {});
  await device.close();
  assert.ok(found.size > 500);
  // The layers say nothing of the root directory: what the base layer has stays.
  const differences = [...compareTrees(source.list(), found)].filter(({ path, what }) => path !== "" || !what.endsWith(" time"));
  assert.deepEqual(differences, []);
}

/** The paths of the files of one layer. */
function layerPaths(
  scratch: TemporaryDirectory,
  layer: number,
): Record<"data" | "index" | "config" | "commit" | "tar" | "gzip" | "dump", string> {
  const path = (name: string): string => scratch.join(`${layer}.${name}`);
  return {
    data: path("data"),
    index: path("index"),
    config: path("json"),
    commit: path("commit"),
    tar: path("tar"),
    gzip: path("gz_idx"),
    dump: path("meta"),
  };
}

type Apply = (paths: ReturnType<typeof layerPaths>) => Promise<void>;

/** Makes turboOCI layers of the recorded ones, one on the other, and opens them. */
async function makeTurboImage(
  scratch: TemporaryDirectory,
  { base, createFlags, ofErofs = false }: { base: readonly Lower[]; createFlags: readonly string[]; ofErofs?: boolean },
  apply: Apply,
): Promise<ByteSource> {
  const lowers = [...base];
  for (const layer of [0, 1, 2]) {
    const paths = layerPaths(scratch, layer);
    const { data, index, config, commit, tar, gzip } = paths;
    await writeFile(tar, recordedTarget(layer, ofErofs)[0]);
    await succeed(createCreateTool, [data, index, "-s", "64", "--turboOCI", ...(layer === 0 ? createFlags : [])]);
    await writeFile(config, JSON.stringify({ lowers, upper: { data, index, target: tar } }));
    await apply(paths);
    await succeed(createCommitTool, [data, index, commit, "-z", "--fastoci"]);
    lowers.push({ file: commit, targetFile: tar, gzipIndex: gzip });
  }
  return await openImage(lowers);
}

const applyGzipped: Apply = async ({ tar, config, gzip }) => {
  assert.equal(await succeed(createTurboApplyTool, [tar, config, "--gz_index_path", gzip]), "turboOCI-apply done\n");
};

test("turboOCI-apply makes the tree of three layers, on a filesystem of its own", async () => {
  await using scratch = await TemporaryDirectory.create();
  const device = await makeTurboImage(scratch, { base: [], createFlags: ["--mkfs"] }, applyGzipped);
  await assertTree(device);
});

test("turboOCI-apply makes the tree of dumps of the layers' headers, on the base layer", async () => {
  await using scratch = await TemporaryDirectory.create();
  const device = await makeTurboImage(
    scratch,
    { base: [await baseFile(scratch)], createFlags: [] },
    async ({ tar, dump, config, gzip }) => {
      await succeed(createTurboApplyTool, [tar, dump, "--export", "--gz_index_path", gzip]);
      await succeed(createTurboApplyTool, [dump, config, "--import"]);
    },
  );
  await assertTree(device);
});

test("overlaybd-apply with --gz_index_path does what turboOCI-apply does", async () => {
  await using scratch = await TemporaryDirectory.create();
  const device = await makeTurboImage(scratch, { base: [], createFlags: ["--mkfs"] }, async ({ tar, config, gzip }) => {
    assert.equal(await succeed(createApplyTool, [tar, config, "--gz_index_path", gzip]), "overlaybd-apply done\n");
  });
  await assertTree(device);
});

test("overlaybd-apply with --gz_index_path holds the tar against --checksum, and changes nothing if it differs", async () => {
  await using scratch = await TemporaryDirectory.create();
  const { data, index, config, tar, gzip } = layerPaths(scratch, 0);
  const [target] = recordedTarget(0);
  await writeFile(tar, target);
  await succeed(createCreateTool, [data, index, "64", "--turboOCI", "--mkfs"]);
  await writeFile(config, JSON.stringify({ upper: { data, index, target: tar } }));
  const before = await readFile(index);
  const args = [tar, config, "--gz_index_path", gzip, "--checksum"];
  const digest = digestOf(gunzipSync(target));
  const refused = await runTool(createApplyTool, [...args, digestOf(target)]);
  assert.equal(refused.status, 255);
  assert.match(refused.stderr, /sha256 checksum mismatch, expect: .*, got: /);
  assert.deepEqual(await readFile(index), before);
  await assert.rejects(stat(gzip), { code: "ENOENT" });
  const { status, stderr } = await runTool(createApplyTool, [...args, digest]);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: `${digest}\n` });
  assert.notDeepEqual(await readFile(index), before);
});

test("overlaybd-merge reads a writable turboOCI layer's data in the compressed tar as in the plain one", async () => {
  await using scratch = await TemporaryDirectory.create();
  const { data, index, config, tar, gzip } = layerPaths(scratch, 0);
  const [target] = recordedTarget(0);
  await writeFile(tar, target);
  await writeFile(scratch.join("plain"), gunzipSync(target));
  await succeed(createCreateTool, [data, index, "1", "--turboOCI", "--mkfs"]);
  await writeFile(config, JSON.stringify({ upper: { data, index, target: tar } }));
  await succeed(createTurboApplyTool, [tar, config, "--gz_index_path", gzip]);
  const merged: Buffer[] = [];
  for (const from of [{ target: tar, gzipIndex: gzip }, { target: scratch.join("plain") }]) {
    await writeFile(config, JSON.stringify({ upper: { data, index, ...from } }));
    await succeed(createMergeTool, [config, scratch.join("merged")]);
    merged.push(await readFile(scratch.join("merged")));
  }
  assert.ok(merged[0].equals(merged[1]));
  await writeFile(config, JSON.stringify({ upper: { data, index, target: tar } }));
  const { status, stderr } = await runTool(createMergeTool, [config, scratch.join("merged")]);
  assert.equal(status, 255);
  assert.match(stderr, /gzip/);
});

test("turboOCI-apply --fstype erofs makes the tree of three layers", async () => {
  await using scratch = await TemporaryDirectory.create();
  const device = await makeTurboImage(scratch, { base: [], createFlags: [], ofErofs: true }, async ({ tar, config, gzip }) => {
    await succeed(createTurboApplyTool, [tar, config, "--fstype", "erofs", "--gz_index_path", gzip]);
  });
  await assertTree(device, true);
});

test("turboOCI-apply --export makes the bytes that the other tool makes", async () => {
  await using scratch = await TemporaryDirectory.create();
  for (const name of ["layer1", "erofs-layer1"]) {
    const [gzipped, plain, zfile, dump] = ["gz", "tar", "zfile", "dump"].map((kind) => scratch.join(`${name}.${kind}`));
    const target = load(`turbo-oci/${name}.tar.gz`);
    await writeFile(gzipped, target);
    await writeFile(plain, gunzipSync(target));
    await succeed(createZFileTool, [plain, zfile]);
    for (const input of [gzipped, plain, zfile]) {
      assert.equal(await succeed(createTurboApplyTool, [input, dump, "--export", "--gz_index_path", scratch.join("index")]), "");
      assert.ok((await readFile(dump)).equals(load(`turbo-oci/${name}.tar.meta.zst`)), input);
    }
  }
});

test("overlaybd-apply makes the tree of three layers, with and without the base layer", async () => {
  await using scratch = await TemporaryDirectory.create();
  const base = await baseFile(scratch);
  for (const [tree, first, createFlags] of [
    ["stack-tree", [], ["--mkfs"]],
    ["base-tree2", [base], []],
  ] as const) {
    const lowers: Lower[] = [...first];
    for (const layer of [0, 1, 2]) {
      const { data, index, config, commit, tar } = layerPaths(scratch, layer);
      await writeFile(tar, recordedTarget(layer)[0]);
      const size = layer === 0 && first.length === 0 ? "64" : "0";
      await succeed(createCreateTool, [`${data}-${tree}`, `${index}-${tree}`, size, "-s", ...(layer === 0 ? createFlags : [])]);
      await writeFile(config, JSON.stringify({ lowers, upper: { data: `${data}-${tree}`, index: `${index}-${tree}` } }));
      await succeed(createApplyTool, [tar, config]);
      await succeed(createCommitTool, [`${data}-${tree}`, `${index}-${tree}`, commit, "-z", "-t", "-f"]);
      lowers.push({ file: commit });
    }
    const device = await openImage(lowers);
    await assertTree(device);
  }
});
