import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { MemorySource } from "../../src/bytes/source.ts";
import { digestOf, type Digest } from "../../src/oci/digest.ts";
import type { ImageStore, StoredBlob } from "../../src/oci/image-store.ts";
import { OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { UploadDirectory } from "../../src/registry/upload-journal.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

/** Smaller blobs are not sent before their digest is known. */
const LEAST_BYTES = 64 << 20;
const REPOSITORY = "early/image";
const bytes = randomBytes(LEAST_BYTES);
const descriptor = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };

let registry: DockerRegistry;
let hostile: HostileRegistry;
let directory: TemporaryDirectory;

/** Uses a store as a new process would open it. */
async function withStore<T>(use: (store: ImageStore) => Promise<T>, tries = 3): Promise<T> {
  const uploads = new UploadDirectory(directory.path, { now: Date.now });
  const retry = { tries, firstDelayMs: 1, maxDelayMs: 2 };
  const store = openRegistryStore({ kind: "registry", host: hostile.host, repository: REPOSITORY }, { uploads, retry });
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

interface Early {
  readonly digest: () => Promise<Digest>;
  readonly content?: Buffer;
  readonly signal?: AbortSignal;
  readonly tries?: number;
}

const early = async ({ digest, content = bytes, signal, tries }: Early): Promise<StoredBlob | undefined> =>
  await withStore(async (store) => await store.putUnhashed(new MemorySource(content), { identity: "layer", digest, signal }), tries);

const requests = (): string => hostile.seen.map(({ method, url }) => (url.includes("/tags/list") ? "TAGS" : method)).join(" ");

/** A digest that turns out when some content is on its way. */
async function digest(): Promise<Digest> {
  while (!hostile.seen.some(({ method }) => method === "PATCH")) await setTimeout(5);
  return descriptor.digest;
}

/** Nothing of an upload is left, neither here nor at the registry. */
async function assertCancelled(): Promise<void> {
  const session = hostile.seen.find(({ method }) => method === "DELETE");
  assert.ok(session, requests());
  assert.equal((await fetch(`http://${registry.host}${session.url}`)).status, 404);
  assert.deepEqual(await readdir(directory.path), []);
}

const hangPieces = (): void => hostile.inject(({ method }) => (method === "PATCH" ? { kind: "hang" } : undefined), Infinity);

describe("uploading a large blob into a repository with an image, before its digest is known", () => {
  before(async () => {
    registry = await startDockerRegistry();
    hostile = await startHostileRegistry(registry.host);
    directory = await TemporaryDirectory.create();
    const config = Buffer.from("{}");
    const configDescriptor = { mediaType: "application/vnd.oci.image.config.v1+json", digest: digestOf(config), size: config.length };
    const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: configDescriptor, layers: [] };
    await withStore(async (store) => {
      await store.putBlob(configDescriptor, new MemorySource(config));
      await store.putManifest(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, { tag: "v1" });
    });
    hostile.reset();
  });
  afterEach(() => hostile.reset());
  after(async () => {
    await directory[Symbol.asyncDispose]();
    await hostile.stop();
    await registry.stop();
  });

  it("fails with what reading the content for its digest fails with", async () => {
    const failure = new Error("disk on fire");
    const failing = async (): Promise<never> => {
      await digest();
      throw failure;
    };
    await assert.rejects(early({ digest: failing }), (error) => error === failure);
    await assertCancelled();
  });

  it("fails with what the question whether it is there fails with", async () => {
    hangPieces();
    hostile.inject(({ method }) => (method === "HEAD" ? { kind: "answer", status: 500 } : undefined), Infinity);
    await assert.rejects(early({ digest }), { code: "UNAVAILABLE", status: 500 });
    await assertCancelled();
  });

  it("fails with what sending fails with, whatever becomes of the digest", async () => {
    hostile.inject(({ method }) => (method === "PATCH" ? { kind: "answer", status: 403 } : undefined), Infinity);
    await assert.rejects(early({ digest: async () => await new Promise(() => {}) }), { code: "DENIED", status: 403 });
  });

  it("stops when it is aborted, and can be gone on with", async () => {
    hangPieces();
    hostile.inject(({ method }) => (method === "PATCH" ? { kind: "headers", headers: {} } : undefined));
    const controller = new AbortController();
    const reason = new Error("enough");
    const aborting = async (): Promise<Digest> => {
      while ((await readdir(directory.path)).length === 0) await setTimeout(5);
      controller.abort(reason);
      return descriptor.digest;
    };
    await assert.rejects(early({ digest: aborting, signal: controller.signal }), (error) => error === reason);
    assert.doesNotMatch(requests(), /DELETE/);
    assert.equal((await readdir(directory.path)).length, 1);
  });

  it("goes on where a process was that ended in the middle, asks whether it was there, and names its digest in the end", async () => {
    assert.deepEqual(await early({ digest }), { digest: descriptor.digest, result: "uploaded" });
    assert.match(requests(), /^TAGS GET PATCH (?=.*HEAD)[HEADPTC ]+ PUT$/);
    assert.match(hostile.seen[2].headers["content-range"] ?? "", /^16777216-/);
    assert.equal(await withStore(async (store) => await store.hasBlob(descriptor.digest, descriptor.size)), true);
    assert.deepEqual(await readdir(directory.path), []);
  });

  it("takes back what it has sent when the repository has the blob", async () => {
    hangPieces();
    assert.deepEqual(await early({ digest }), { digest: descriptor.digest, result: "exists" });
    assert.equal(requests(), "TAGS POST PATCH HEAD GET DELETE");
    await assertCancelled();
  });

  it("is left to who knows the digest when it is small", async () => {
    const small = bytes.subarray(1);
    const unasked = async (): Promise<never> => await Promise.reject(new Error("nobody needs it"));
    assert.equal(await early({ digest: unasked, content: small }), undefined);
    assert.equal(requests(), "TAGS");
  });
});
