import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import type { ConvertOptions } from "../../src/convert/convert-options.ts";
import type { ConversionStore } from "../../src/dedup/conversion-store.ts";
import { openConversionStore } from "../../src/dedup/open-store.ts";
import { openDevice } from "../../src/device/open-device.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { chainIds } from "../../src/oci/chain-id.ts";
import { digestOf, parseDigest } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { convertInto, convertOptions } from "../support/convert.ts";
import { assertTree, load } from "../support/recorded-tree.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

/** Diff IDs of the layers that testdata/overlaybd was made from. Only the last one's tar is there. */
const DIFF_IDS = [
  "sha256:7c698f197dc70f6b8849aed5ae0e5e9a4ccfd37a54cf3ff63ac64230b86e7d29",
  "sha256:265cc7c0c0325132b506a5b7b85e9d5aa6acdd2d18795f4a5add901defb00aa2",
  "sha256:381943f93d3db76f1477a1bef0fd921358d445d5784f03b926edd6ef279da326",
].map((text) => parseDigest(text, "diff ID"));
const CHAIN = chainIds(DIFF_IDS);
const HERE = { host: "registry.example:5000", repository: "app" };

let scratch: TemporaryDirectory;
let source: ImageStore;
let destination: ImageStore;
let store: ConversionStore;
let counter = 0;

before(async () => {
  scratch = await TemporaryDirectory.create();
  source = await openLayoutStore(scratch.join("source"), { create: true });
  const put = async (bytes: Uint8Array, mediaType: string) => {
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    await source.putBlob(descriptor, new MemorySource(bytes));
    return descriptor;
  };
  const missing = DIFF_IDS.slice(0, 2).map((digest) => ({ mediaType: OCI_LAYER_TAR, digest, size: 1 }));
  const layers = [...missing, await put(load("overlaybd/layer2.tar.gz"), OCI_LAYER_GZIP)];
  const rootfs = { type: "layers", diff_ids: DIFF_IDS };
  const config = await put(Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs })), OCI_CONFIG);
  await source.putManifest(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers })), OCI_MANIFEST, {
    tag: "v1",
  });
});

beforeEach(async () => {
  const name = `run-${counter++}`;
  destination = await openLayoutStore(scratch.join(name), { create: true });
  const opened = await openConversionStore({ type: "sqlite", address: scratch.join(`${name}.sqlite`), directory: scratch.path });
  assert.ok(opened);
  store = opened;
});

after(async () => await scratch[Symbol.asyncDispose]());

/** Puts layers that overlaybd made where the result goes, with rows that say no more than the standalone convertor's do. */
async function remember(name: "stack" | "base", layers: readonly number[]): Promise<void> {
  for (const index of layers) {
    const blob = load(`overlaybd/${name}-layer${index}.commit.zst`);
    const descriptor = { mediaType: OCI_LAYER_TAR, digest: digestOf(blob), size: blob.length };
    await destination.putBlob(descriptor, new MemorySource(blob));
    await store.insert({ ...HERE, source: { kind: "layer", chainId: CHAIN[index] }, digest: descriptor.digest, size: blob.length });
  }
}

async function convert(options: Partial<ConvertOptions> = {}): Promise<string[]> {
  const known = { store, repository: HERE };
  const result = await convertInto(source, { tag: "v1" }, destination, "v1", convertOptions(scratch.join("work"), { known, ...options }));
  return result.images[0].layers.map((layer) => layer.outcome);
}

test("layers that overlaybd made are continued from the standalone convertor's rows, and never read from the source", async () => {
  await remember("stack", [0, 1]);
  assert.deepEqual(await convert(), ["reused", "reused", "uploaded"]);
  const { descriptor, bytes } = await destination.resolve({ tag: "v1" });
  const device = await openDevice(destination, parseManifest(bytes, descriptor.mediaType, "v1"));
  await assertTree(device, "stack-tree");
  await device.close();

  assert.deepEqual(await convert({ family: "oci" }), ["reused", "reused", "reused"], "what was converted on top of them is remembered");
  const ours = (await store.list(HERE)).filter((row) => row.fingerprint !== undefined);
  assert.equal(ours.length, 1, "under a fingerprint of its own");
  assert.match(ours[0].fingerprint ?? "", /,sha256:[0-9a-f]{64},/);
});

test("such rows are not used with a gap below, or for other options than they were made with", async () => {
  const refused = { code: "NOT_FOUND" }; // the source's lower layers are not there to be converted
  await remember("stack", [1, 2]);
  await assert.rejects(convert(), refused);
  await remember("stack", [0]);
  await assert.rejects(convert({ virtualSize: 32 * 2 ** 30 }), refused);
  assert.equal((await store.list(HERE)).length, 3, "they stay as they are");
  assert.deepEqual(await convert(), ["reused", "reused", "reused"]);
});

test("layers on top of a base layer are not taken for layers with a filesystem of their own", async () => {
  await remember("base", [0, 1, 2]);
  await assert.rejects(convert(), { code: "NOT_FOUND" });
});

test("a row whose blob is gone is removed", async () => {
  await remember("stack", [0]);
  const [row] = await store.list(HERE);
  await store.remove(row);
  await store.insert({ ...row, digest: CHAIN[2] });
  await assert.rejects(convert(), { code: "NOT_FOUND" });
  assert.deepEqual(await store.list(HERE), []);
});
