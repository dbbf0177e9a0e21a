import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { after, afterEach, before, describe, it, type TestContext } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_INDEX, OCI_LAYER_TAR } from "../../src/oci/media-types.ts";
import { openConfiguredStore, type ConfiguredOptions } from "../../src/registry/configured-store.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { HostDirectories } from "../../src/registry/host-directories.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const index = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
const bytes = randomBytes(2_000_000);
const layer = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };
let directory: TemporaryDirectory;
let [behindMirror, behindServer]: ReferrersRegistry[] = [];
let [mirror, server]: HostileRegistry[] = [];
let notices: string[] = [];
const stores: ImageStore[] = [];

before(async () => {
  directory = await TemporaryDirectory.create();
  [behindMirror, behindServer] = [await startReferrersRegistry(), await startReferrersRegistry()];
  [mirror, server] = [await startHostileRegistry(behindMirror.host), await startHostileRegistry(behindServer.host)];
  for (const { host } of [behindMirror, behindServer]) {
    const filler = openRegistryStore({ kind: "registry", host, repository: "a/b" });
    await filler.putBlob(layer, new MemorySource(bytes));
    await filler.putManifest(index, OCI_INDEX, { tag: "v1" });
    await filler.close();
  }
});
afterEach(() => {
  notices = [];
  for (const front of [mirror, server]) front.reset();
});
after(async () => {
  for (const store of stores) await store.close();
  for (const thing of [mirror, server, behindMirror, behindServer, directory]) await thing[Symbol.asyncDispose]();
});

async function openMirrored(entry: string, options: Partial<ConfiguredOptions> = {}): Promise<ImageStore> {
  const root = directory.join(`hosts-${stores.length}`);
  await mkdir(`${root}/registry.test`, { recursive: true });
  await writeFile(`${root}/registry.test/hosts.toml`, `server = "http://${server.host}"\n[host."http://${mirror.host}"]\n${entry}\n`);
  const store = await openConfiguredStore(
    { kind: "registry", host: "registry.test", repository: "a/b" },
    { hosts: new HostDirectories([root]), retry: { tries: 2, firstDelayMs: 1 }, notice: (message) => notices.push(message), ...options },
  );
  stores.push(store);
  return store;
}

async function readAll(store: ImageStore): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of store.blobStream(layer)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

/** Moves the clock on by what is set. */
function movableClock(context: TestContext): { seconds: number } {
  const clock = { seconds: 0 };
  const startMs = Math.round(performance.now());
  context.mock.method(performance, "now", () => startMs + clock.seconds * 1000);
  return clock;
}

const counts = (): number[] => [mirror.seen.length, server.seen.length];
const PULL = 'capabilities = ["pull"]';
const RESOLVE = 'capabilities = ["pull", "resolve"]';

describe("a mirror", () => {
  it("is asked for content, and told on whose behalf; tags are resolved by the registry", async () => {
    const store = await openMirrored(PULL);
    assert.equal((await store.resolve({ tag: "v1" })).descriptor.digest, digestOf(index));
    assert.deepEqual(counts(), [0, 1]);
    assert.deepEqual(await readAll(store), bytes);
    await store.resolve({ digest: digestOf(index) });
    assert.deepEqual(counts(), [2, 1]);
    assert.equal(mirror.seen[0].url, `/v2/a/b/blobs/${layer.digest}?ns=registry.test`);
  });

  it("that may resolve is asked for tags", async () => {
    await (await openMirrored(RESOLVE)).resolve({ tag: "v1" });
    assert.deepEqual(counts(), [1, 0]);
  });

  it("is written to only if it may be pushed to", async () => {
    const other = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], annotations: { a: "b" } });
    await (await openMirrored(RESOLVE)).putManifest(other, OCI_INDEX, { tag: "v2" });
    assert.deepEqual(counts(), [0, 1]);
    const pushing = await openMirrored('capabilities = ["pull", "push"]');
    assert.equal(await pushing.putBlob(layer, new MemorySource(bytes)), "exists");
    await pushing.putManifest(other, OCI_INDEX, { tag: "v3" });
    assert.deepEqual(counts(), [3, 1]);
  });

  it("never gets the password or the headers that are for the registry", async () => {
    server.inject(
      ({ headers }) => (headers["authorization"] ? undefined : { kind: "answer", status: 401, headers: { "www-authenticate": "Basic" } }),
      Infinity,
    );
    mirror.inject(() => ({ kind: "answer", status: 401, headers: { "www-authenticate": "Basic" } }), Infinity);
    const store = await openMirrored(`${RESOLVE}\n[host."http://${mirror.host}".header]\nx-mirror = "m"`, {
      credentials: new FixedCredentials("u", "p"),
    });
    await store.resolve({ tag: "v1" });
    assert.deepEqual(
      mirror.seen.map(({ headers }) => [headers["authorization"], headers["x-mirror"]]),
      [[undefined, "m"]],
    );
    assert.equal(
      server.seen.some(({ headers }) => headers["x-mirror"] !== undefined),
      false,
    );
    assert.match(notices.join(), /^mirror 127.*401.*asking registry\.test\/a\/b instead$/);
  });

  for (const [what, fault] of [
    ["fails", { kind: "answer", status: 503 }],
    ["is not there", { kind: "reset" }],
    ["sends something else", { kind: "corrupt", at: 5 }],
  ] as const) {
    it(`that ${what} is passed over, with one notice`, async () => {
      mirror.inject(() => fault, Infinity);
      const store = await openMirrored(RESOLVE);
      const { descriptor } = await store.resolve({ digest: digestOf(index) });
      assert.deepEqual(Buffer.from(await store.manifest(descriptor)), Buffer.from(index));
      const asked = mirror.seen.length;
      assert.deepEqual(await readAll(store), bytes);
      assert.deepEqual([mirror.seen.length, notices.length], [asked, 1]);
    });
  }

  it("that lacks something is passed over for that alone, without a word", async () => {
    mirror.inject(({ url }) => (url.includes("/manifests/") ? { kind: "answer", status: 404 } : undefined), Infinity);
    const store = await openMirrored(RESOLVE);
    await store.resolve({ tag: "v1" });
    assert.deepEqual(await readAll(store), bytes);
    assert.deepEqual([notices, server.seen.length], [[], 1]);
  });

  it("that breaks off in the middle of a blob is continued by the registry", async () => {
    mirror.inject(({ headers }) => (headers["range"] ? { kind: "reset" } : { kind: "truncate", afterBytes: 700_000 }), Infinity);
    assert.deepEqual(await readAll(await openMirrored(PULL)), bytes);
    assert.equal(notices.length, 1);
  });

  it("that sent wrong bytes before it broke off is found out", async () => {
    mirror.inject(() => ({ kind: "corrupt", at: 10 }), 1);
    await assert.rejects(readAll(await openMirrored(PULL)), { code: "CORRUPT", message: /a mirror has sent other content/ });
  });

  it("that stops answering ranges is replaced within a source", async () => {
    const source = await (await openMirrored(PULL)).blobSource(layer);
    assert.deepEqual(Buffer.from(await source.read(5, 10)), bytes.subarray(5, 15));
    mirror.inject(() => ({ kind: "answer", status: 500 }), Infinity);
    const parts = await Promise.all([0, 1, 2].map(async (at) => await source.read(at * 100, 100)));
    assert.deepEqual(Buffer.concat(parts), bytes.subarray(0, 300));
    await source.close();
  });

  it("that gave wrong bytes is replaced when the reader says so, and the registry is not", async () => {
    const source = await (await openMirrored(PULL)).blobSource(layer);
    mirror.inject(() => ({ kind: "corrupt", at: 0 }), Infinity);
    assert.notDeepEqual(Buffer.from(await source.read(5, 10)), bytes.subarray(5, 15));
    source.distrust?.();
    assert.deepEqual(Buffer.from(await source.read(5, 10)), bytes.subarray(5, 15));
    source.distrust?.();
    assert.deepEqual(Buffer.from(await source.read(5, 10)), bytes.subarray(5, 15));
    assert.match(notices.join(), /gave wrong bytes of registry.test\/a\/b: blob sha256/);
    assert.equal(notices.length, 1);
    await source.close();
  });

  it("that failed is asked by one read after a while that grows, and serves again when it answers", async (context) => {
    const clock = movableClock(context);
    const source = await (await openMirrored(PULL)).blobSource(layer);
    const read = async (at: number): Promise<void> => {
      assert.deepEqual(Buffer.from(await source.read(at, 10)), bytes.subarray(at, at + 10));
    };
    mirror.inject(() => ({ kind: "answer", status: 403 }), Infinity);
    const asked: number[] = [];
    for (const seconds of [0, 9, 10, 11, 29, 30, 69, 70]) {
      clock.seconds = seconds;
      await Promise.all([1, 2, 3].map(read));
      asked.push(mirror.seen.length);
    }
    assert.deepEqual(asked, [3, 3, 4, 4, 4, 5, 5, 6]);
    assert.equal(notices.length, 1);
    mirror.reset();
    server.reset();
    server.inject(() => ({ kind: "answer", status: 403 }), Infinity);
    await assert.rejects(source.read(0, 10), { code: "DENIED" });
    assert.deepEqual(counts(), [0, 1]);
    clock.seconds = 149;
    await assert.rejects(source.read(0, 10), { code: "DENIED" });
    clock.seconds = 150;
    await read(0);
    await Promise.all([1, 2, 3].map(read));
    assert.deepEqual(counts(), [4, 2]);
    assert.equal(notices.length, 1);
    mirror.inject(() => ({ kind: "answer", status: 403 }));
    await assert.rejects(source.read(0, 10), { code: "DENIED" });
    assert.equal(notices.length, 2);
    await source.close();
  });

  it("that failed for hours is asked every five minutes", async (context) => {
    const clock = movableClock(context);
    const store = await openMirrored(PULL);
    mirror.inject(() => ({ kind: "answer", status: 403 }), Infinity);
    for (; clock.seconds < 3600; clock.seconds += 100) await store.blobSize(layer.digest);
    const asked = mirror.seen.length;
    for (; clock.seconds < 7200; clock.seconds += 100) await store.blobSize(layer.digest);
    assert.equal(mirror.seen.length - asked, 12);
  });

  it("that gave wrong bytes is asked again after ten minutes", async (context) => {
    const clock = movableClock(context);
    const source = await (await openMirrored(PULL)).blobSource(layer);
    await source.read(0, 10);
    source.distrust?.();
    for (clock.seconds of [10, 599]) await source.read(0, 10);
    assert.deepEqual(counts(), [1, 2]);
    clock.seconds = 600;
    await source.read(0, 10);
    await source.read(0, 10);
    assert.deepEqual(counts(), [3, 2]);
    await source.close();
  });

  it("that lacks a blob is not asked for it at each read, and serves what it gets", async (context) => {
    const clock = movableClock(context);
    const store = await openMirrored(PULL);
    const source = await store.blobSource(layer);
    mirror.inject(({ headers }) => (headers["range"] === "bytes=0-0" ? undefined : { kind: "answer", status: 404 }));
    for (clock.seconds of [0, 1, 9]) await source.read(0, 10);
    assert.deepEqual(counts(), [1, 3]);
    assert.equal(await store.blobSize(layer.digest), layer.size);
    clock.seconds = 10;
    await source.read(0, 10);
    await source.read(0, 10);
    assert.deepEqual([...counts(), notices.length], [4, 3, 0]);
    await source.close();
  });

  it("is not asked once reading was stopped", async () => {
    const store = await openMirrored(PULL);
    const controller = new AbortController();
    const reason = new Error("enough");
    const reading = async (): Promise<void> => {
      for await (const _ of store.blobStream(layer, { signal: controller.signal })) controller.abort(reason);
    };
    await assert.rejects(reading(), (error) => error === reason);
    assert.deepEqual(counts(), [1, 0]);
  });
});
