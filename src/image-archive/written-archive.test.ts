import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, readlink, symlink, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { join } from "node:path";
import { readTar } from "../../test/support/tar-events.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { MemorySink } from "../bytes/sink.ts";
import { MemorySource } from "../bytes/source.ts";
import { blobPath } from "../image-layout/layout-blobs.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf } from "../oci/digest.ts";
import { describeImageStore } from "../oci/image-store.contract.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { encodeJson } from "../oci/json.ts";
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST } from "../oci/media-types.ts";
import { openArchiveFile } from "./archive-store.ts";
import { openFileTarget, sinkTarget } from "./archive-target.ts";
import { createArchive, type WriteOptions } from "./written-archive.ts";

let scratch: TemporaryDirectory;
let archives = 0;

before(async () => {
  scratch = await TemporaryDirectory.create();
});
after(async () => scratch[Symbol.asyncDispose]());

/** An empty directory of its own, for an archive and whatever may be left beside it. */
async function newDirectory(): Promise<string> {
  const path = scratch.join(String(archives++));
  await mkdir(path);
  return path;
}

async function written(file: string, options: Partial<WriteOptions> = {}): Promise<ImageStore> {
  return await createArchive(await openFileTarget(file), { format: "oci", ...options });
}

for (const format of ["oci", "docker"] as const) {
  describeImageStore(`an archive that is written as ${format}'s`, () => ({
    open: async () => await written(join(await newDirectory(), "a.tar"), { format }),
    damage: async (store, digest) => {
      const directory = join(store.name, "..");
      const [staging] = (await readdir(directory)).filter((name) => name.startsWith("."));
      await using file = await open(blobPath(join(directory, staging), digest), "r+");
      await file.write(Buffer.from([0xff, 0xee, 0xdd]), 0, 3, 5);
    },
  }));
}

async function putBlob(store: ImageStore, bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
  const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
  await store.putBlob(descriptor, new MemorySource(bytes));
  return descriptor;
}

const LAYER = Buffer.alloc(3000, "layer");

async function putImage(
  store: ImageStore,
  tag: string | undefined,
  author = "me",
  layers: readonly Uint8Array[] = [LAYER],
): Promise<Descriptor> {
  const config = await putBlob(store, encodeJson({ author, architecture: "amd64", os: "linux" }), OCI_CONFIG);
  const stored: Descriptor[] = [];
  for (const layer of layers) stored.push({ ...(await putBlob(store, layer, OCI_LAYER_TAR)), annotations: { "x.y": "z" } });
  const bytes = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: stored });
  return await store.putManifest(bytes, OCI_MANIFEST, { tag });
}

async function jsonIn(file: string, path: string): Promise<unknown> {
  const member = readTar(await readFile(file)).find((found) => found.path === path);
  return member && (JSON.parse(member.data.toString()) as unknown);
}

describe("an archive that is written", () => {
  it("is there, whole, when its image has a tag, and nothing else is left beside it", async () => {
    const directory = await newDirectory();
    const file = join(directory, "a.tar");
    const store = await written(file);
    const image = await putImage(store, undefined);
    assert.ok(!(await readdir(directory)).includes("a.tar"), "not before");
    await store.putManifest(await store.manifest(image), image.mediaType, { tag: "v1" });
    assert.equal((await readdir(directory)).length, 2);
    const before = await readFile(file);
    await store.close();
    await store.close();
    assert.deepEqual(await readdir(directory), ["a.tar"]);
    assert.deepEqual(await readFile(file), before);
    const reader = await openArchiveFile(file, { temporaryDirectory: directory });
    assert.deepEqual((await reader.resolve({ tag: "v1" })).descriptor, image);
    await reader.close();
    await assert.rejects(putImage(store, "v2"), { code: "USAGE", message: /is closed/ });
  });

  it("has the same bytes for the same image, whatever came first", async () => {
    const files: Buffer[] = [];
    for (const first of [Buffer.from("x"), LAYER]) {
      const file = join(await newDirectory(), "a.tar");
      const store = await written(file);
      await putBlob(store, first, OCI_LAYER_TAR);
      await putBlob(store, Buffer.from("x"), OCI_LAYER_TAR);
      await putImage(store, "v1");
      await store.close();
      files.push(await readFile(file));
    }
    assert.deepEqual(files[0], files[1]);
    const members = readTar(files[0]);
    assert.deepEqual(members.map(({ path }) => path), members.map(({ path }) => path).toSorted()); // prettier-ignore
    for (const { mtime, uid, gid, mode, type } of members) {
      assert.deepEqual([mtime.seconds, uid, gid, mode], [0, 0, 0, type === "directory" ? 0o755 : 0o644]);
    }
  });

  it("of docker's kind has a manifest.json and names where docker looks for them", async () => {
    const file = join(await newDirectory(), "a.tar");
    const store = await written(file, { format: "docker", repository: "app" });
    const two = randomBytes(600);
    const image = await putImage(store, undefined, "me", [LAYER, two]);
    const other = await putImage(store, undefined, "you");
    const index = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [image, other] });
    await store.putManifest(index, OCI_INDEX, { tag: "v1" });
    await store.close();
    const path = (bytes: Uint8Array): string => `blobs/sha256/${digestOf(bytes).slice("sha256:".length)}`;
    const config = (author: string): string => path(encodeJson({ author, architecture: "amd64", os: "linux" }));
    assert.deepEqual(await jsonIn(file, "manifest.json"), [
      { Config: config("me"), RepoTags: ["app:v1"], Layers: [path(LAYER), path(two)] },
      { Config: config("you"), RepoTags: null, Layers: [path(LAYER)] },
    ]);
    const { manifests } = (await jsonIn(file, "index.json")) as { manifests: Descriptor[] };
    assert.deepEqual(
      manifests.map(({ annotations }) => annotations),
      [{ "org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": "docker.io/library/app:v1" }],
    );
    const reader = await openArchiveFile(file, { format: "docker", repository: "docker.io/library/app", temporaryDirectory: "/none" });
    assert.equal((await reader.resolve({ tag: "v1" })).descriptor.digest, digestOf(index));
    await reader.close();
  });

  it("takes the place of another file only when it is whole", async () => {
    const directory = await newDirectory();
    const file = join(directory, "a.tar");
    await writeFile(file, "thesis");
    const store = await written(file);
    const image = await putImage(store, undefined);
    const [staging] = (await readdir(directory)).filter((name) => name.startsWith("."));
    await writeFile(blobPath(join(directory, staging), digestOf(LAYER)), "x".repeat(LAYER.length));
    await assert.rejects(store.putManifest(await store.manifest(image), OCI_MANIFEST, { tag: "v1" }), { code: "CORRUPT" });
    assert.equal(await readFile(file, "utf8"), "thesis");
    await store.close();
    assert.deepEqual(await readdir(directory), ["a.tar"]);
    const again = await written(file);
    await putImage(again, "v1");
    await again.close();
    assert.ok((await readFile(file)).length > LAYER.length);
  });

  it("is written behind a symlink, which stays", async () => {
    const [directory, other] = [await newDirectory(), await newDirectory()];
    await writeFile(join(other, "real.tar"), "thesis");
    await symlink(join(other, "real.tar"), join(directory, "a.tar"));
    const store = await written(join(directory, "a.tar"));
    await putImage(store, "v1");
    await store.close();
    assert.equal(await readlink(join(directory, "a.tar")), join(other, "real.tar"));
    assert.ok((await readFile(join(other, "real.tar"))).length > LAYER.length);
    assert.deepEqual([await readdir(directory), await readdir(other)], [["a.tar"], ["real.tar"]]);
  });

  it("leaves nothing when it is interrupted, or has got no tag", async () => {
    for (const tag of ["v1", undefined]) {
      const directory = await newDirectory();
      const controller = new AbortController();
      const store = await written(join(directory, "a.tar"), { signal: controller.signal });
      await putImage(store, undefined);
      if (tag !== undefined) {
        controller.abort(new Error("changed my mind"));
        await assert.rejects(putImage(store, tag), { message: "changed my mind" });
      }
      await store.close();
      assert.deepEqual(await readdir(directory), []);
    }
  });

  it("needs a directory to be in, and replaces nothing but a file", async () => {
    const directory = await newDirectory();
    await assert.rejects(written(join(directory, "none/a.tar")), { code: "NOT_FOUND", message: /none: does not exist/ });
    await assert.rejects(written(directory), { code: "USAGE", message: /not a regular file/ });
    await assert.rejects(written("/dev/null"), { code: "USAGE", message: /not a regular file/ });
    await writeFile(join(directory, "file"), "");
    await assert.rejects(written(join(directory, "file/a.tar")), { code: "USAGE", message: /file: is not a directory/ });
  });
});

describe("an archive that goes to a stream", () => {
  it("is the same as in a file, comes when there is a tag, and only once", async () => {
    const directory = await newDirectory();
    const sink = new MemorySink();
    const [stream, file] = [
      await createArchive(sinkTarget(sink, "standard output", directory), { format: "oci" }),
      await written(join(directory, "a.tar")),
    ];
    await putImage(stream, undefined);
    assert.equal(sink.bytes().length, 0);
    for (const store of [stream, file]) await putImage(store, "v1");
    assert.deepEqual(sink.bytes(), await readFile(join(directory, "a.tar")));
    await assert.rejects(putImage(stream, "v2"), { code: "USAGE", message: /standard output: takes one image only/ });
    for (const store of [stream, file]) await store.close();
    assert.deepEqual(await readdir(directory), ["a.tar"]);
  });

  it("fails when the stream fails", async () => {
    const directory = await newDirectory();
    const failure = new Error("nobody reads");
    const sink = { write: async () => Promise.reject(failure), close: async () => {} };
    const store = await createArchive(sinkTarget(sink, "standard output", directory), { format: "oci" });
    await assert.rejects(putImage(store, "v1"), (error) => error === failure);
    await store.close();
    assert.deepEqual(await readdir(directory), []);
  });
});
