import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import type { ConvertOptions, ConvertResult } from "../../src/convert/convert-options.ts";
import { planConversion } from "../../src/convert/plan-conversion.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseIndex, type ImageIndex } from "../../src/oci/index.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { Platform } from "../../src/oci/platform.ts";
import { convertInto, convertOptions, targetOf } from "../support/convert.ts";
import { layerOf, writeImage, type BuiltLayer } from "../support/image-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const AMD64: Platform = { os: "linux", architecture: "amd64" };
const ARM64: Platform = { os: "linux", architecture: "arm64" };
const UNKNOWN: Platform = { os: "unknown", architecture: "unknown" };
const ARTIFACT_TYPE = "application/vnd.containerd.overlaybd.native.v1+json";

const SHARED = layerOf([{ name: "usr/share/common", data: "the same everywhere" }]);
const FOR_AMD64 = layerOf([{ name: "usr/bin/tool", data: "amd64" }]);
const FOR_ARM64 = layerOf([{ name: "usr/bin/tool", data: "arm64" }]);

let scratch: TemporaryDirectory;
let source: ImageStore;
let destination: ImageStore;
let counter = 0;

before(async () => {
  scratch = await TemporaryDirectory.create();
  await writeImage(scratch.join("source"), "scratch", { layers: [] });
  source = await openLayoutStore(scratch.join("source"));
});
beforeEach(async () => {
  destination = await openLayoutStore(scratch.join(`destination-${counter++}`), { create: true });
});
after(async () => await scratch[Symbol.asyncDispose]());

async function image(layers: readonly BuiltLayer[], platform: Platform, entry: object = {}): Promise<Descriptor> {
  const config = { os: platform.os, architecture: platform.architecture };
  return { ...(await writeImage(scratch.join("source"), `image-${counter++}`, { layers, config })), platform, ...entry };
}

/** A manifest that holds something else than an image. */
async function artifact(configType: string, layerType: string, entry: object = {}): Promise<Descriptor> {
  const put = async (mediaType: string, text: string): Promise<Descriptor> => {
    const bytes = Buffer.from(text);
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    await source.putBlob(descriptor, new MemorySource(bytes));
    return descriptor;
  };
  const layers = [await put(layerType, `{"predicate":${counter++}}`)];
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: await put(configType, "{}"), layers };
  return { ...(await source.putManifest(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, {})), ...entry };
}

async function attestationOf(attested: Descriptor): Promise<Descriptor> {
  return await artifact("application/vnd.oci.image.config.v1+json", "application/vnd.in-toto+json", {
    platform: UNKNOWN,
    annotations: { "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": attested.digest },
  });
}

async function index(tag: string, manifests: readonly Descriptor[], more: object = {}): Promise<Descriptor> {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests, ...more }));
  return await source.putManifest(bytes, OCI_INDEX, { tag });
}

async function convert(tag: string, options: Partial<ConvertOptions> = {}): Promise<ConvertResult & { warnings: string[] }> {
  const warnings: string[] = [];
  const observer = { warning: (message: string): void => void warnings.push(message) };
  const directory = scratch.join(`work-${counter++}`);
  const result = await convertInto(source, { tag }, destination, tag, convertOptions(directory, { observer, ...options }));
  return { ...result, warnings };
}

async function indexOf(tag: string, store = destination): Promise<ImageIndex> {
  const { descriptor, bytes } = await store.resolve({ tag });
  return parseIndex(bytes, descriptor.mediaType, tag);
}

test("layers that several platforms have are converted once", async () => {
  await index("shared", [await image([SHARED, FOR_AMD64], AMD64), await image([SHARED, FOR_ARM64], ARM64)]);
  for (const imagesAtOnce of [1, 4]) {
    const { images } = await convert("shared", { imagesAtOnce });
    const outcomes = images.map(({ layers }) => layers.map((layer) => layer.outcome));
    const expected = imagesAtOnce === 1 ? ["uploaded", "uploaded"] : ["exists", "exists"];
    assert.deepEqual(outcomes, [expected, ["reused", expected[0]]], `${imagesAtOnce} images at once`);
    assert.equal(images[0].layers[0].converted.digest, images[1].layers[0].converted.digest);
    for (const [at, alone] of [
      [0, AMD64],
      [1, ARM64],
    ] as const) {
      const single = await convert("shared", { platforms: [alone], upload: false });
      assert.equal(single.images[0].converted.digest, images[at].converted.digest, "as it is on its own");
    }
  }
});

test("attestations stay, and describe the converted image", async () => {
  const amd64 = await image([SHARED, FOR_AMD64], AMD64);
  const arm64 = await image([FOR_ARM64], ARM64);
  const [ofAmd64, ofArm64] = [await attestationOf(amd64), await attestationOf(arm64)];
  await index("attested", [amd64, ofAmd64, arm64, ofArm64]);
  const { images } = await convert("attested");
  const { manifests } = await indexOf("attested");
  assert.deepEqual(
    manifests.map(({ digest }) => digest),
    [images[0].converted.digest, ofAmd64.digest, images[1].converted.digest, ofArm64.digest],
  );
  assert.deepEqual(manifests[1], {
    ...ofAmd64,
    annotations: { ...ofAmd64.annotations, "vnd.docker.reference.digest": images[0].converted.digest },
  });
  const stored = parseManifest(await destination.manifest(ofAmd64), OCI_MANIFEST, "attestation");
  assert.ok(await destination.hasBlob(stored.layers[0].digest), "with what it consists of");

  await convert("attested", { platforms: [ARM64] });
  assert.deepEqual(
    (await indexOf("attested")).manifests.map(({ digest }) => digest),
    [images[1].converted.digest, ofArm64.digest],
    "where the image goes, its attestation goes",
  );
  await convert("attested", { attestations: "drop" });
  assert.equal((await indexOf("attested")).manifests.length, 2);
});

test("what is no image, or is one already, stays as it is, with a notice", async () => {
  const amd64 = await image([SHARED, FOR_AMD64], AMD64);
  await index("first", [amd64]);
  const [{ converted }] = (await convert("first")).images;
  const chart = await artifact("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
  await copyTo(source, converted);
  const done = { ...converted, platform: AMD64 };
  await index("mixed", [chart, done, await image([FOR_ARM64], ARM64)]);
  const { images, warnings } = await convert("mixed");
  assert.deepEqual(
    images.map(({ outcome }) => outcome),
    ["copied", "converted"],
  );
  assert.equal(warnings.length, 2);
  assert.match(warnings.join("\n"), new RegExp(`${chart.digest}: is no image; it stays as it is`));
  assert.match(warnings.join("\n"), new RegExp(`${converted.digest}: is converted already; it stays as it is`));
  const { manifests } = await indexOf("mixed");
  assert.deepEqual(manifests.slice(0, 2), [chart, done]);
  for (const { config, layers } of [chart, done].map(() => parseManifest(readManifest(converted), converted.mediaType, "done")))
    for (const blob of [config, ...layers]) assert.ok(await destination.hasBlob(blob.digest, blob.size));
});

function readManifest({ digest }: Descriptor): Uint8Array {
  return readFileSync(scratch.join(`source/blobs/sha256/${digest.slice("sha256:".length)}`));
}

/** Copies what the last conversion made into the source. */
async function copyTo(to: ImageStore, converted: Descriptor): Promise<void> {
  const bytes = await destination.manifest(converted);
  const { config, layers } = parseManifest(bytes, converted.mediaType, "converted");
  for (const blob of [config, ...layers]) {
    const content = await destination.blobSource(blob);
    await to.putBlob(blob, content);
    await content.close();
  }
  await to.putManifest(bytes, converted.mediaType, { tag: "converted" });
}

test("an image that is converted already is stored under the tag as it is", async () => {
  await index("again", [await image([SHARED], AMD64)]);
  const [{ converted }] = (await convert("again")).images;
  await copyTo(source, converted);
  const { descriptor, images, warnings } = await convert("converted");
  assert.equal(descriptor.digest, converted.digest);
  assert.deepEqual(
    images.map(({ outcome }) => outcome),
    ["copied"],
  );
  assert.match(warnings[0], /is converted already/);
  assert.equal((await destination.resolve({ tag: "converted" })).descriptor.digest, converted.digest);
});

test("a reference that leads to no image is refused, whatever else it leads to", async () => {
  const chart = await artifact("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
  await source.putManifest(readManifest(chart), OCI_MANIFEST, { tag: "chart" });
  await index("charts", [chart]);
  await index("empty", []);
  const refusals: [tag: string, message: RegExp][] = [
    ["chart", /is of type application\/vnd.cncf.helm.config.v1\+json, not an image; there is nothing to convert/],
    ["charts", /the index has no image in it/],
    ["empty", /the index has no image in it/],
  ];
  for (const [tag, message] of refusals) await assert.rejects(convert(tag), { code: "UNSUPPORTED", message });
});

test("platforms are looked for in indexes in indexes, and in images whose entries say nothing of them", async () => {
  const inner = await index("inner", [await image([FOR_ARM64], ARM64), await image([SHARED], AMD64)]);
  const { platform: _, ...silent } = await image([FOR_AMD64], { os: "linux", architecture: "s390x" });
  const vague = { ...(await image([SHARED, FOR_ARM64], { os: "linux", architecture: "riscv64" })), platform: UNKNOWN };
  await index("outer", [inner, silent, vague]);
  const all = await convert("outer");
  assert.equal(all.images.length, 4);
  const { manifests } = await indexOf("outer");
  assert.equal(manifests.length, 3);
  assert.deepEqual(manifests[2].platform, UNKNOWN, "it is not corrected");
  for (const [architecture, at] of [
    ["arm64", 0],
    ["s390x", 2],
    ["riscv64", 3],
  ] as const) {
    const { images } = await convert("outer", { platforms: [{ os: "linux", architecture }] });
    assert.deepEqual(
      images.map(({ converted }) => converted.digest),
      [all.images[at].converted.digest],
    );
    assert.equal((await indexOf("outer")).manifests.length, 1);
  }
  await assert.rejects(convert("outer", { platforms: [ARM64, { os: "linux", architecture: "ppc64le" }] }), {
    code: "NOT_FOUND",
    message: /no image for linux\/ppc64le; it has .*linux\/s390x/,
  });
});

test("an index without a media type of its own is converted like any other", async () => {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [await image([SHARED], AMD64)] }));
  await source.putManifest(bytes, OCI_INDEX, { tag: "typeless" });
  const { descriptor } = await convert("typeless");
  assert.equal(descriptor.mediaType, OCI_INDEX);
  assert.equal((await indexOf("typeless")).mediaType, OCI_INDEX);
});

test("what an entry held of its manifest goes, and all else of it stays", async () => {
  const amd64 = await image([SHARED], AMD64, { annotations: { a: "b" }, urls: ["https://nowhere.invalid/x"], data: "e30=", "x-own": 1 });
  await index("entry", [amd64], { annotations: { kept: "yes" }, "x-own": 2 });
  const [{ converted }] = (await convert("entry")).images;
  const found = await indexOf("entry");
  const { data: _, ...rest } = amd64 as Descriptor & { data?: unknown };
  assert.deepEqual(found.manifests, [{ ...rest, ...converted }]);
  assert.deepEqual(
    { ...found, manifests: [] },
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], annotations: { kept: "yes" }, "x-own": 2 },
  );
});

test("a referrer names its source as its subject, in the index and in each image", async () => {
  const [amd64, arm64] = [await image([SHARED], AMD64), await image([FOR_ARM64], ARM64)];
  const top = await index("referred", [amd64, arm64]);
  const { images, descriptor } = await convert("referred", { referrer: true, family: "oci" });
  const found = await indexOf("referred");
  assert.deepEqual([found.artifactType, found.subject], [ARTIFACT_TYPE, top]);
  for (const [at, { source: of, converted }] of images.entries()) {
    const manifest = parseManifest(await destination.manifest(converted), converted.mediaType, "manifest");
    const { mediaType, digest, size } = [amd64, arm64][at];
    assert.deepEqual([manifest.artifactType, manifest.subject], [ARTIFACT_TYPE, { mediaType, digest, size }]);
    assert.deepEqual(
      (await destination.referrers(of.digest, ARTIFACT_TYPE)).map((each) => each.digest),
      [converted.digest],
    );
  }
  assert.deepEqual(
    (await destination.referrers(top.digest)).map((each) => each.digest),
    [descriptor.digest],
  );
});

test("a bad image in an index is found before any other is converted where its documents show it, and leaves no tag otherwise", async () => {
  const good = await image([SHARED], AMD64);
  const fewer = await image([FOR_ARM64], ARM64, {});
  const bytes = JSON.parse(Buffer.from(readManifest(fewer)).toString()) as { layers: unknown[] };
  const manifest = Buffer.from(JSON.stringify({ ...bytes, layers: [...bytes.layers, ...bytes.layers] }));
  const doubled = await source.putManifest(manifest, OCI_MANIFEST, {});
  await index("fewer", [good, { ...doubled, platform: ARM64 }]);
  await assert.rejects(convert("fewer"), { code: "CORRUPT", message: /the manifest has 2 layers, the config 1 diff IDs/ });
  await index("spoilt", [good, await image([{ ...FOR_ARM64, diffId: FOR_AMD64.diffId }], ARM64)]);
  await assert.rejects(convert("spoilt"), { code: "CORRUPT", message: /diff ID/ });
  for (const tag of ["fewer", "spoilt"]) await assert.rejects(destination.resolve({ tag }), { code: "NOT_FOUND" });
});

test("the documents of all images and indexes are left behind when they are asked for", async () => {
  const inner = await index("inner", [await image([SHARED], AMD64)]);
  await index("dumped", [inner, await image([FOR_ARM64], ARM64)]);
  const directory = scratch.join("dumped");
  const { images, descriptor } = await convert("dumped", { directory, dump: true });
  assert.equal(digestOf(readFileSync(`${directory}/index.json`)), descriptor.digest);
  const nested = readFileSync(`${directory}/index-${inner.digest.slice("sha256:".length)}.json`);
  assert.equal(digestOf(nested), (await indexOf("dumped")).manifests[0].digest);
  for (const [at, { source: of, converted }] of images.entries()) {
    const place = `${directory}/${at + 1}-linux_${["amd64", "arm64"][at]}-${of.digest.slice("sha256:".length)}`;
    assert.equal(digestOf(readFileSync(`${place}/manifest.json`)), converted.digest);
    assert.ok(existsSync(`${place}/config.json`));
  }
});

test("a plan says what would be done, and does nothing", async () => {
  await index("planned", [await image([SHARED, FOR_AMD64], AMD64), await image([SHARED, FOR_ARM64], ARM64)]);
  const options = convertOptions(scratch.join("work"));
  const plan = (await planConversion(source, { tag: "planned" }, [targetOf(destination, undefined, options)], options))[0];
  const outcomes = plan.images.map(({ outcome, layers }) => [outcome, ...layers.map((layer) => layer.outcome)]);
  assert.deepEqual(outcomes, [
    ["convert", "convert", "convert"],
    ["convert", "reuse", "convert"],
  ]);
  await assert.rejects(destination.resolve({ tag: "planned" }), { code: "NOT_FOUND" });
  assert.equal(existsSync(scratch.join("work")), false);
});
