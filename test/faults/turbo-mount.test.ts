import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { digestOf, hexOf } from "../../src/oci/digest.ts";
import { OCI_CONFIG, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { listTree, MountBench, stackTree } from "../journeys/mount-support.ts";
import { execute } from "../support/command.ts";
import { recordedTurboLayers, type StoredLayer } from "../support/turbo-image.ts";

const LAYERS = recordedTurboLayers("mkfs", { withDigests: true });
const CONFIG = Buffer.from(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`);

/** A bench with a turboOCI image and the layers that it was made from, in the layout `turbo`. */
async function createBench(layers: readonly StoredLayer[] = LAYERS): Promise<MountBench> {
  const bench = await MountBench.create([]);
  const store = await openLayoutStore(bench.join("turbo"), { create: true });
  const config = { mediaType: OCI_CONFIG, digest: digestOf(CONFIG), size: CONFIG.length };
  const put = async (bytes: Uint8Array): Promise<unknown> =>
    await store.putBlob({ mediaType: "", digest: digestOf(bytes), size: bytes.length }, new MemorySource(bytes));
  await put(CONFIG);
  for (const { blob, target } of layers) {
    await put(blob);
    if (target !== undefined) await put(target);
  }
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: layers.map(({ descriptor }) => descriptor) };
  await store.putManifest(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, { tag: "latest" });
  await store.close();
  return bench;
}

const targetPath = (bench: MountBench, layer: number): string =>
  bench.join("turbo", "blobs", "sha256", hexOf(digestOf(LAYERS[layer].target!)));

/** Blocks that a file takes are not what the tree is about: empty files take one in some images. */
function withoutBlocks(tree: readonly unknown[]): unknown[] {
  return tree.map((entry) => (typeof entry === "object" && entry !== null ? { ...entry, blocks: undefined } : entry));
}

/** Reads every file; gives what went wrong. */
async function readAll(directory: string): Promise<string> {
  const { stderr } = await execute("sh", ["-c", 'find "$1" -type f -exec cat {} + > /dev/null', "sh", directory], {
    signal: AbortSignal.timeout(30_000),
  });
  return stderr;
}

function logOf(bench: MountBench): string {
  const [state] = readdirSync(bench.join("state"));
  return readFileSync(bench.join("state", state, "log"), "utf8");
}

test("a mounted turboOCI image shows the tree that its layers make; mounted again, it fetches nothing", async () => {
  await using bench = await createBench();
  const directory = await bench.mountPoint();
  for (const isWarm of [false, true]) {
    const before = bench.fetched();
    const { status, stderr } = await bench.lazylayer("mount", "turbo", directory);
    assert.deepEqual([status, stderr], [0, ""]);
    assert.deepEqual(withoutBlocks(await listTree(directory)), withoutBlocks(stackTree()));
    await bench.umount(directory);
    if (isWarm) assert.deepEqual(bench.fetched(), before);
  }
  assert.deepEqual(bench.leftovers(), []);
});

test("data that changes below a mount gives EIO and a line in the log, never wrong bytes; when it is right again, so are reads", async () => {
  await using bench = await createBench();
  const directory = await bench.mountPoint();
  await bench.lazylayer("mount", "turbo", directory);
  const good = readFileSync(targetPath(bench, 0));
  const bad = Buffer.from(good);
  for (let at = 100_000; at < bad.length; at += 700_000) bad[at] ^= 0x10;
  writeFileSync(targetPath(bench, 0), bad);
  assert.match(await readAll(directory), /Input\/output error/);
  const lines = logOf(bench).trimEnd().split("\n");
  assert.ok(lines.length > 0);
  assert.equal(new Set(lines.map((line) => line.replace(/^read of \S+ failed/, ""))).size, lines.length, "each failure is said once");
  const place = new RegExp(
    `^read of \\[\\d+, \\d+\\) failed: .*${hexOf(digestOf(good))}.*: bytes \\[\\d+, \\d+\\) of the content, stored in `,
  );
  for (const line of lines) assert.match(line, place);
  writeFileSync(targetPath(bench, 0), good);
  assert.equal(await readAll(directory), "");
  assert.deepEqual(withoutBlocks(await listTree(directory)), withoutBlocks(stackTree()));
  await bench.umount(directory);
});

test("an image whose layers' data is missing is not mounted", async () => {
  await using bench = await createBench();
  const directory = await bench.mountPoint();
  rmSync(targetPath(bench, 1));
  const { status, stderr } = await bench.lazylayer("mount", "turbo", directory);
  assert.equal(status, 1);
  assert.match(stderr, new RegExp(`its data is in blob ${digestOf(LAYERS[1].target!)}.*does not have.*--data-repository`));
  assert.deepEqual(bench.leftovers(), []);
});
