import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ConvertResult } from "../../src/convert/convert-options.ts";
import type { Conversion, ConversionStore } from "../../src/dedup/conversion-store.ts";
import { openConversionStore } from "../../src/dedup/open-store.ts";
import { LazyError } from "../../src/errors.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { Digest } from "../../src/oci/digest.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { type TestOptions, convertInto, convertOptions } from "../support/convert.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { copyImage, layerOf, writeImage, type BuiltLayer } from "../support/image-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const noise = (seed: number, bytes: number): Buffer =>
  Buffer.from(Array.from({ length: bytes }, (_, at) => (at * seed * 2654435761) >>> 13));
const BASE = layerOf([
  { name: "etc/", mode: 0o750 },
  { name: "etc/hosts", data: "127.0.0.1 localhost" },
  { name: "usr/bin/tool", data: noise(3, 90_000) },
  ...Array.from({ length: 300 }, (_, at) => ({ name: `usr/share/doc/file-${at}`, data: `text ${at}` })),
]);
const MIDDLE = layerOf([
  { name: "etc/hosts", data: "::1 localhost" },
  { name: "usr/share/doc/.wh.file-7" },
  { name: "opt/app", data: noise(5, 70_000) },
]);
const TOP = layerOf([
  { name: "opt/app", data: "changed" },
  { name: "usr/share/doc/link", type: "symlink", link: "file-8" },
]);
const OTHER_TOP = layerOf([{ name: "opt/.wh..wh..opq" }, { name: "usr/bin/tool", data: noise(7, 50_000) }]);

const IMAGES: Readonly<Record<string, readonly BuiltLayer[]>> = {
  two: [BASE, MIDDLE],
  three: [BASE, MIDDLE, TOP],
  other: [BASE, MIDDLE, OTHER_TOP],
};

let registry: DockerRegistry;
let proxy: HostileRegistry;
let scratch: TemporaryDirectory;
let counter = 0;
let repository = "";
let store: ConversionStore;

before(async () => {
  [registry, scratch] = await Promise.all([startDockerRegistry(), TemporaryDirectory.create()]);
  proxy = await startHostileRegistry(registry.host);
  const layout = scratch.join("images");
  const source = registryStore(registry.host, "source");
  for (const [tag, layers] of Object.entries(IMAGES)) {
    await writeImage(layout, tag, { layers });
    await copyImage(await openLayoutStore(layout), { tag }, source, tag);
  }
  await source.close();
});

beforeEach(async () => {
  repository = `destination-${counter++}`;
  store = await openStore(`${repository}.sqlite`);
});

after(async () => {
  await proxy.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function registryStore(host: string, name: string): ImageStore {
  const reference = parseReference(`${host}/${name}`);
  assert.ok(reference.kind === "registry");
  return openRegistryStore(reference);
}

async function openStore(name: string): Promise<ConversionStore> {
  const opened = await openConversionStore({ type: "sqlite", address: scratch.join(name), directory: scratch.path });
  assert.ok(opened);
  return opened;
}

interface Outcome {
  readonly digest: Digest;
  /** Of each layer; what became of the image if it was not converted layer by layer. */
  readonly outcomes: readonly string[];
  /** `METHOD path` of each request, without the host. */
  readonly requests: readonly string[];
  readonly warnings: readonly string[];
}

/** Converts an image of the source repository through the observed registry; with `known` undefined, nothing is remembered. */
async function convert(image: string, options: Partial<TestOptions> = {}, to = repository): Promise<Outcome> {
  proxy.reset();
  const warnings: string[] = [];
  const [source, destination] = [registryStore(proxy.host, "source"), registryStore(proxy.host, to)];
  const known = { store, repository: { host: "registry.example:5000", repository: to } };
  const observer = { warning: (message: string): void => void warnings.push(message) };
  try {
    const converting = convertOptions(scratch.join("work"), { known, observer, ...options });
    const result = await convertInto(source, { tag: image }, destination, image, converting);
    const tagged = await destination.resolve({ tag: image }).catch(() => undefined);
    if (converting.upload) assert.equal(tagged?.descriptor.digest, result.descriptor.digest);
    return { digest: result.descriptor.digest, outcomes: outcomesOf(result), requests: requestsSeen(), warnings };
  } finally {
    await Promise.all([source.close(), destination.close()]);
  }
}

function outcomesOf({ images: [image] }: ConvertResult): string[] {
  return image.layers.length === 0 ? [image.outcome] : image.layers.map((layer) => layer.outcome);
}

function requestsSeen(): string[] {
  return proxy.seen.map(({ method, url, headers }) => `${method} ${url}${headers["range"] === undefined ? "" : " range"}`);
}

/** What a conversion from scratch gives. */
async function expected(image: string, options: Partial<TestOptions> = {}): Promise<Digest> {
  const { digest } = await convert(image, { ...options, known: undefined }, `fresh-${counter++}`);
  return digest;
}

function wholeBlobsRead({ requests }: Outcome, name: string): string[] {
  return requests.filter((request) => request.startsWith(`GET /v2/${name}/blobs/`) && !request.endsWith(" range"));
}

test("an image that was converted before is only tagged", async () => {
  const first = await convert("three");
  const second = await convert("three");
  assert.deepEqual(second.outcomes, ["reused"]);
  assert.equal(second.digest, first.digest);
  assert.deepEqual(
    second.requests.map((request) => request.replace(/sha256:[0-9a-f]{64}/, "DIGEST")),
    [
      "GET /v2/source/manifests/three",
      "GET /v2/source/blobs/DIGEST",
      `GET /v2/${repository}/manifests/DIGEST`,
      `GET /v2/${repository}/blobs/DIGEST range`, // the topmost layer's identity
      ...Array.from({ length: 4 }, () => `GET /v2/${repository}/blobs/DIGEST range`), // whether the config and the layers are there
      `PUT /v2/${repository}/manifests/three`,
      `GET /v2/${repository}/manifests/three`, // the test's own
    ],
  );
});

test("in documents of another kind the layers are taken as they are, and none is downloaded", async () => {
  await convert("three");
  const again = await convert("three", { family: "oci" });
  assert.deepEqual(again.outcomes, ["reused", "reused", "reused"]);
  assert.equal(again.digest, await expected("three", { family: "oci" }));
  assert.equal(wholeBlobsRead(again, "source").length, 1, "the config");
  assert.deepEqual(wholeBlobsRead(again, repository), []);
});

test("only what is new of an image is converted, and the result is that of a conversion from scratch", async () => {
  await convert("two");
  for (const image of ["three", "other"]) {
    const again = await convert(image);
    assert.deepEqual(again.outcomes, ["reused", "reused", "uploaded"]);
    assert.equal(wholeBlobsRead(again, "source").length, 2, "the config and one layer");
    assert.deepEqual(wholeBlobsRead(again, repository), []);
    assert.equal(again.digest, await expected(image));
  }
});

test("a layer in the middle that is not known is converted between those that are", async () => {
  const first = await convert("three");
  const rows = await store.list({ host: "registry.example:5000", repository });
  const layers = rows.filter((row) => row.source.kind === "layer");
  assert.equal(layers.length, 3);
  for (const row of rows) {
    if (row.source.kind !== "layer") continue;
    await forgetManifests();
    await store.remove(row);
    const again = await convert("three");
    assert.equal(again.digest, first.digest);
    assert.equal(again.outcomes.filter((outcome) => outcome === "reused").length, 2);
    assert.equal(again.outcomes.filter((outcome) => outcome === "exists").length, 1, "it was there all the time");
  }
});

async function rowsHere(kind: "layer" | "manifest", name = repository): Promise<Conversion[]> {
  return (await store.list({ host: "registry.example:5000", repository: name })).filter((row) => row.source.kind === kind);
}

async function forgetManifests(): Promise<void> {
  for (const row of await rowsHere("manifest")) await store.remove(row);
}

test("what was made with other options is not used", async () => {
  await convert("three");
  const other = { virtualSize: 128 * 2 ** 30 };
  const again = await convert("three", other);
  assert.deepEqual(again.outcomes, ["uploaded", "uploaded", "uploaded"]);
  assert.equal(again.digest, await expected("three", other));
  const referrer = await convert("three", { referrer: true });
  assert.deepEqual(referrer.outcomes, ["reused", "reused", "reused"], "layers know nothing of subjects");
  assert.equal(referrer.digest, await expected("three", { referrer: true }));
});

test("rows whose blobs or manifests are gone are removed, and the image is converted", async () => {
  const first = await convert("three");
  const [gone, ...others] = await rowsHere("layer");
  assert.equal(others.length, 2);
  for (const path of [`manifests/${first.digest}`, `blobs/${gone.digest}`]) {
    const answer = await fetch(`http://${registry.host}/v2/${repository}/${path}`, { method: "DELETE" });
    assert.equal(answer.status, 202, path);
  }
  const again = await convert("three");
  assert.equal(again.digest, first.digest);
  assert.deepEqual(again.outcomes.toSorted(), ["reused", "reused", "uploaded"]);
  assert.deepEqual(again.warnings, []);
  assert.equal((await rowsHere("layer")).length, 3, "the row is there anew");
});

test("a row that names another blob is found out, and removed", async () => {
  const first = await convert("three");
  await forgetManifests();
  const [one, two] = await rowsHere("layer");
  await store.remove(one);
  await store.insert({ ...one, digest: two.digest, size: two.size });
  const again = await convert("three");
  assert.equal(again.digest, first.digest);
  assert.equal(again.warnings.length, 1);
  assert.match(again.warnings[0], new RegExp(`blob ${two.digest} is not the layer that .* takes it for`));
  const digests = async (): Promise<string[]> => (await rowsHere("layer")).map((row) => row.digest);
  assert.equal(new Set(await digests()).size, 3, "each row names a blob of its own again");
});

test("a manifest row that names another image's manifest is found out, and removed", async () => {
  const three = await convert("three");
  const other = await convert("other");
  const [row] = (await rowsHere("manifest")).filter(({ digest }) => digest === three.digest);
  const [wrong] = (await rowsHere("manifest")).filter(({ digest }) => digest === other.digest);
  await store.remove(row);
  await store.insert({ ...row, digest: wrong.digest, size: wrong.size });
  const again = await convert("three");
  assert.equal(again.digest, three.digest);
  assert.deepEqual(again.outcomes, ["reused", "reused", "reused"]);
});

test("layers of another repository are mounted, on a host with a port too", async () => {
  const first = await convert("three");
  const elsewhere = `mounted-${counter++}`;
  const again = await convert("three", {}, elsewhere);
  assert.deepEqual(again.outcomes, ["mounted", "mounted", "mounted"]);
  assert.equal(again.digest, first.digest);
  assert.equal(again.requests.filter((request) => request.includes("?mount=")).length, 3);
  assert.equal(again.requests.filter((request) => /^(PUT|PATCH) .*uploads/.test(request)).length, 1, "the config");
  assert.equal((await rowsHere("layer", elsewhere)).length, 3);
});

test("a run that stores nothing remembers nothing, and takes what is there", async () => {
  const dry = await convert("three", { upload: false });
  assert.deepEqual(dry.outcomes, ["kept", "kept", "kept"]);
  assert.deepEqual(await rowsHere("layer"), []);
  assert.ok(dry.requests.every((request) => request.startsWith("GET ") || request.startsWith("HEAD ")));
  const first = await convert("two");
  assert.notEqual(first.digest, dry.digest);
  const again = await convert("three", { upload: false });
  assert.deepEqual(again.outcomes, ["reused", "reused", "kept"]);
  assert.equal(again.digest, dry.digest);
  assert.equal((await rowsHere("layer")).length, 2);
});

test("a database that fails is said once, and costs nothing but time", async () => {
  const fails = async (): Promise<never> => {
    throw new LazyError("UNAVAILABLE", "database: it is down");
  };
  const down: ConversionStore = {
    name: "database",
    find: fails,
    findElsewhere: fails,
    insert: fails,
    remove: fails,
    repositories: fails,
    list: fails,
    close: async () => {},
  };
  const outcome = await convert("three", { known: { store: down, repository: { host: "h", repository: "r" } } });
  assert.deepEqual(outcome.warnings, ["database: it is down; going on without the conversion database"]);
  assert.equal(outcome.digest, await expected("three"));
});

test("two runs that convert the same image at the same time are both right", async () => {
  const runs = await Promise.all([convert("three", { directory: scratch.join("a") }), convert("three", { directory: scratch.join("b") })]);
  assert.equal(runs[0].digest, runs[1].digest);
  assert.equal((await rowsHere("layer")).length, 3);
  assert.equal((await rowsHere("manifest")).length, 1);
  assert.deepEqual((await convert("three")).outcomes, ["reused"]);
});

test("what a run that failed has finished of large layers is not converted again", async () => {
  const large = layerOf([{ name: "opt/large", data: randomBytes(12 << 20) }]);
  const layout = scratch.join("images");
  await writeImage(layout, "large", { layers: [large, TOP] });
  const whole = await openLayoutStore(layout);
  const [first] = parseManifest((await whole.resolve({ tag: "large" })).bytes, OCI_MANIFEST, "large").layers;
  const known = { store, repository: { host: "registry.example:5000", repository } };
  const destination = registryStore(registry.host, repository);
  /** Gives the upper layer only up once the lower one is stored. */
  const breaksOff: ImageStore = {
    name: whole.name,
    resolve: async (target) => await whole.resolve(target),
    manifest: async (descriptor) => await whole.manifest(descriptor),
    blob: async (descriptor) => await whole.blob(descriptor),
    blobStream: (descriptor, streaming) => (descriptor.digest === first.digest ? whole.blobStream(descriptor, streaming) : endsLater()),
    blobSource: async (descriptor) => await whole.blobSource(descriptor),
    blobSize: async (digest) => await whole.blobSize(digest),
    hasBlob: async (digest) => await whole.hasBlob(digest),
    mountBlob: async () => false,
    putBlob: async () => await Promise.reject(new Error("a source is not written to")),
    putUnhashed: async () => await Promise.reject(new Error("a source is not written to")),
    putManifest: async () => await Promise.reject(new Error("a source is not written to")),
    referrers: async () => [],
    close: async () => {},
  };
  async function* endsLater(): AsyncGenerator<Uint8Array> {
    while ((await rowsHere("layer")).length === 0) yield* await sleep(10, []);
    throw new LazyError("UNAVAILABLE", "it broke off");
  }
  const options = convertOptions(scratch.join("work"), { known });
  await assert.rejects(convertInto(breaksOff, { tag: "large" }, destination, "large", options), { message: /it broke off/ });
  const { images } = await convertInto(whole, { tag: "large" }, destination, "large", options);
  assert.deepEqual(
    images[0].layers.map((layer) => layer.outcome),
    ["reused", "uploaded"],
  );
  const fresh = registryStore(registry.host, `fresh-${counter++}`);
  const anew = await convertInto(whole, { tag: "large" }, fresh, "large", { ...options, known: undefined });
  assert.equal(images[0].converted.digest, anew.descriptor.digest);
  await Promise.all([destination.close(), fresh.close()]);
});
