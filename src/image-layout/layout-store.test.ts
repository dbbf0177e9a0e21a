import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { startDockerRegistry } from "../../test/support/docker-registry.ts";
import { copyImages } from "../../test/support/images.ts";
import { parseConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { describeImageStore } from "../oci/image-store.contract.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { parseIndex } from "../oci/index.ts";
import { encodeJson } from "../oci/json.ts";
import { parseManifest } from "../oci/manifest.ts";
import { documentKind, OCI_INDEX, OCI_MANIFEST } from "../oci/media-types.ts";
import { openRegistryStore } from "../registry/registry-store.ts";
import { blobPath } from "./layout-blobs.ts";
import { openLayoutStore } from "./layout-store.ts";

let root: string;
let layouts = 0;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "lazylayer-layout-"));
});
after(async () => rm(root, { recursive: true, force: true }));

describeImageStore("a layout directory", () => ({
  open: async () => openLayoutStore(join(root, String(layouts++)), { create: true }),
  damage: async (store, digest) => {
    await using file = await open(blobPath(store.name.slice("oci:".length), digest), "r+");
    await file.write(Buffer.from([0xff, 0xee, 0xdd]), 0, 3, 5);
  },
}));

describe("a layout directory", () => {
  it("of many images is copied to a registry and back without a change", async () => {
    await using images = await copyImages();
    await using registry = await startDockerRegistry();
    const source = await openLayoutStore(images.directory);
    const index = await readIndexFile(images.directory);
    const away = openRegistryStore({ kind: "registry", host: registry.host, repository: "copy/images" });
    const back = await openLayoutStore(join(root, "back"), { create: true });
    for (const tag of ["small-oci-v1", "mixed-all", "multi-oci-nested", "multi-docker-v1", "mixed-nolayers"]) {
      const top = await source.resolve({ tag });
      await copyDocument(source, away, top.descriptor, tag);
      assert.deepEqual((await away.resolve({ tag })).descriptor, top.descriptor);
      await copyDocument(away, back, top.descriptor, tag);
      assert.deepEqual(await back.resolve({ tag }), top);
    }
    for (const entry of index.manifests) await source.resolve({ tag: entry.annotations?.["org.opencontainers.image.ref.name"] });
    await away.close();
  });

  it("that is missing is not found, unless it may be made at the first write", async () => {
    const directory = join(root, "not/yet");
    await assert.rejects(openLayoutStore(directory), { code: "NOT_FOUND" });
    const store = await openLayoutStore(directory, { create: true });
    await assert.rejects(store.resolve({}), { code: "NOT_FOUND" });
    await assert.rejects(stat(directory), { code: "ENOENT" });
    await putText(store, "x", "v1");
    await (await openLayoutStore(directory)).resolve({ tag: "v1" });
  });

  it("that holds something else is left alone", async () => {
    const directory = join(root, "else");
    await mkdir(directory);
    await assert.rejects(openLayoutStore(directory), { code: "NOT_FOUND", message: /no oci-layout file/ });
    await writeFile(join(directory, "thesis.txt"), "");
    await assert.rejects(openLayoutStore(directory, { create: true }), { code: "USAGE", message: /neither empty nor an OCI layout/ });
    await writeFile(join(directory, "oci-layout"), '{"imageLayoutVersion":"2.0.0"}');
    await assert.rejects(openLayoutStore(directory), { code: "UNSUPPORTED" });
  });

  it("that was only begun is gone on with", async () => {
    const empty = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
    const unfinished = ["index.json.tmp-", "oci-layout.tmp-"].map((name) => `${name}${randomUUID()}`);
    for (const [at, files] of [unfinished.slice(0, 1), ["index.json"], ["index.json", ...unfinished]].entries()) {
      const directory = join(root, `begun-${at}`);
      await mkdir(directory);
      for (const name of files) await writeFile(join(directory, name), name === "index.json" ? empty : "{");
      await assert.rejects(openLayoutStore(directory), { code: "NOT_FOUND" });
      const store = await openLayoutStore(directory, { create: true });
      await assert.rejects(store.resolve({}), { code: "NOT_FOUND" });
      await putText(store, "x", "v1");
      await (await openLayoutStore(directory)).resolve({ tag: "v1" });
    }
  });

  it("without its mark is somebody else's when there is anything in it", async () => {
    const { digest, size, mediaType } = await putText(await openLayoutStore(join(root, "own"), { create: true }), "x", "v1");
    const index = (manifests: unknown): string => JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests });
    for (const [at, [name, content]] of [
      ["index.json", index([{ digest, size, mediaType }])],
      ["index.json", ""],
      ["index.json", "[]"],
      ["index.json", '{"name":"a web page"}'],
      ["blobs", index([])],
      ["index.json.tmp-1", index([])],
      [`thesis.tmp-${randomUUID()}`, ""],
    ].entries()) {
      const directory = join(root, `marked-${at}`);
      await mkdir(directory);
      await writeFile(join(directory, name), content);
      await assert.rejects(openLayoutStore(directory, { create: true }), { code: "USAGE", message: /neither empty/ }, content);
      await writeFile(join(directory, "index.json"), index([]));
      if (name !== "index.json") await assert.rejects(openLayoutStore(directory, { create: true }), { code: "USAGE" });
    }
  });

  it("gives its only image without a tag and asks which of several", async () => {
    const store = await openLayoutStore(join(root, "several"), { create: true });
    const first = await putText(store, "one", "v1");
    assert.deepEqual((await store.resolve({})).descriptor, first);
    await putText(store, "two", "v2");
    await assert.rejects(store.resolve({}), { code: "USAGE", message: /v1, v2/ });
  });

  it("keeps what it does not know in its index, and entries of others", async () => {
    const directory = join(root, "others");
    const store = await openLayoutStore(directory, { create: true });
    const descriptor = await putText(store, "one", "v1");
    const path = join(directory, "index.json");
    const index = await readIndexFile(directory);
    const other = { ...descriptor, annotations: { "x.y": "z" }, extra: [1] };
    await writeFile(path, JSON.stringify({ ...index, custom: true, manifests: [other] }));
    await putText(store, "two", "v2");
    const changed = await readIndexFile(directory);
    assert.deepEqual([changed.custom, changed.manifests[0], changed.manifests.length], [true, other, 2]);
  });

  it("takes many tags at once and leaves no temporary files", async () => {
    const directory = join(root, "busy");
    const store = await openLayoutStore(directory, { create: true });
    const twin = await openLayoutStore(directory, { create: true });
    await Promise.all(Array.from({ length: 20 }, async (_, at) => putText(at % 2 ? store : twin, `text ${at % 7}`, `v${at}`)));
    for (let at = 0; at < 20; at++) await store.resolve({ tag: `v${at}` });
    const names = await readdir(directory, { recursive: true });
    assert.deepEqual(
      names.filter((name) => name.includes("tmp")),
      [],
    );
  });

  it("whose index or manifest has a path for a digest leads nowhere", async () => {
    const directory = join(root, "paths");
    const store = await openLayoutStore(directory, { create: true });
    const { size } = await putText(store, "one", "v1");
    await writeFile(join(root, "outside"), "x".repeat(size));
    const path = join(directory, "index.json");
    const index = await readIndexFile(directory);
    for (const digest of ["sha256:../../../outside", "../outside", "sha256:", `sha256:${"0".repeat(64)}/../../../../outside`]) {
      await writeFile(path, JSON.stringify({ ...index, manifests: [{ ...index.manifests[0], digest }] }));
      await assert.rejects(store.resolve({ tag: "v1" }), { code: "CORRUPT", message: /digest/ });
    }
  });

  it("replaces a damaged blob and refuses an ambiguous or damaged index", async () => {
    const directory = join(root, "damaged");
    const store = await openLayoutStore(directory, { create: true });
    const descriptor = await putText(store, "one", "v1");
    await writeFile(blobPath(directory, descriptor.digest), "x".repeat(descriptor.size));
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "CORRUPT" });
    await putText(store, "one", "v1");
    await store.resolve({ tag: "v1" });
    const path = join(directory, "index.json");
    const index = await readIndexFile(directory);
    const twice = [index.manifests[0], { ...index.manifests[0], digest: `sha256:${"0".repeat(64)}` }];
    for (const [content, code] of [
      [JSON.stringify({ ...index, manifests: twice }), "CORRUPT"],
      [JSON.stringify({ ...index, manifests: [{ ...index.manifests[0], digest: "sha256:../../../oci-layout" }] }), "CORRUPT"],
      ["{", "CORRUPT"],
    ] as const) {
      await writeFile(path, content);
      await assert.rejects(store.resolve({ tag: "v1" }), { code });
    }
  });
});

interface IndexFile {
  readonly custom?: boolean;
  readonly manifests: readonly Descriptor[];
}

async function readIndexFile(directory: string): Promise<IndexFile> {
  return JSON.parse(await readFile(join(directory, "index.json"), "utf8")) as IndexFile;
}

async function putText(store: ImageStore, author: string, tag: string): Promise<Descriptor> {
  const bytes = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [], annotations: { author } });
  return await store.putManifest(bytes, OCI_MANIFEST, { tag });
}

async function copyDocument(from: ImageStore, to: ImageStore, descriptor: Descriptor, tag: string | undefined): Promise<void> {
  const bytes = await from.manifest(descriptor);
  if (documentKind(descriptor.mediaType) === "index") {
    for (const entry of parseIndex(bytes, descriptor.mediaType, from.name).manifests) await copyDocument(from, to, entry, undefined);
  } else {
    const { config, layers } = parseManifest(bytes, descriptor.mediaType, from.name);
    for (const blob of [config, ...layers]) {
      const content = await from.blobSource(blob);
      await to.putBlob(blob, content);
      await content.close();
    }
    parseConfig(await from.blob(config), from.name);
  }
  await to.putManifest(bytes, descriptor.mediaType, { tag });
}
