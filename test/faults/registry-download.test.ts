import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { LazyError } from "../../src/errors.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { RegistryOptions } from "../../src/registry/client.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type Fault, type HostileRegistry } from "../support/hostile-registry.ts";

const bytes = randomBytes(1_000_000);
const layer = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };
const configBytes = encodeJson({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } });
const config = { mediaType: OCI_CONFIG, digest: digestOf(configBytes), size: configBytes.length };
const manifestBytes = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] });

let registry: DockerRegistry;
let hostile: HostileRegistry;
let store: ImageStore;
const stores: ImageStore[] = [];
const pauses: number[] = [];

function openStore(options: RegistryOptions = {}): ImageStore {
  const opened = openRegistryStore(
    { kind: "registry", host: hostile.host, repository: "faults/image", tag: "v1" },
    {
      retry: { tries: 3, firstDelayMs: 1, maxDelayMs: 5, maxRetryAfterMs: 2_000 },
      observer: { waiting: ({ milliseconds }) => pauses.push(milliseconds) },
      ...options,
    },
  );
  stores.push(opened);
  return opened;
}

before(async () => {
  registry = await startDockerRegistry();
  hostile = await startHostileRegistry(registry.host);
  const filler = openStore();
  await filler.putBlob(layer, new MemorySource(bytes));
  await filler.putBlob(config, new MemorySource(configBytes));
  await filler.putManifest(manifestBytes, OCI_MANIFEST, { tag: "v1" });
  store = openStore();
  hostile.reset();
});
afterEach(() => {
  hostile.reset();
  pauses.length = 0;
});
after(async () => {
  for (const opened of stores) await opened.close();
  await hostile.stop();
  await registry.stop();
});

const onBlob = (fault: Fault) => (request: { url: string }) => (request.url.includes("/blobs/") ? fault : undefined);
const onManifest = (fault: Fault) => (request: { url: string }) => (request.url.includes("/manifests/") ? fault : undefined);

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

describe("streaming a blob", () => {
  it("takes one request when nothing goes wrong", async () => {
    assert.deepEqual(await readAll(store.blobStream(layer)), bytes);
    assert.deepEqual(
      hostile.seen.map(({ method, url }) => `${method} ${url}`),
      [`GET /v2/faults/image/blobs/${layer.digest}`],
    );
    assert.equal(hostile.seen[0].headers["accept-encoding"], "identity");
  });

  it("resumes where a broken body stopped", async () => {
    hostile.inject(onBlob({ kind: "truncate", afterBytes: 400_000 }));
    assert.deepEqual(await readAll(store.blobStream(layer)), bytes);
    assert.equal(hostile.seen.length, 2);
    const resumed = /^bytes=(\d+)-999999$/.exec(hostile.seen[1].headers["range"] ?? "");
    assert.ok(resumed && Number(resumed[1]) > 0 && Number(resumed[1]) <= 400_000, hostile.seen[1].headers["range"]);
  });

  it("resumes as often as there is progress", async () => {
    hostile.inject(onBlob({ kind: "truncate", afterBytes: 270_000 }), 3);
    assert.deepEqual(await readAll(store.blobStream(layer)), bytes);
    assert.equal(hostile.seen.length, 4);
  });

  it("gives up when tries bring next to nothing", async () => {
    hostile.inject(onBlob({ kind: "truncate", afterBytes: 10 }), Infinity);
    await assert.rejects(readAll(store.blobStream(layer)), { code: "UNAVAILABLE" });
    assert.equal(hostile.seen.length, 3);
  });

  it("resumes after a stall", async () => {
    const impatient = openStore({ timeouts: { stallMs: 50 } });
    hostile.inject(onBlob({ kind: "stall", afterBytes: 300_000 }));
    assert.deepEqual(await readAll(impatient.blobStream(layer)), bytes);
    assert.ok(hostile.seen[1].headers["range"]?.startsWith("bytes="));
  });

  it("does not take a whole blob for the rest of one", async () => {
    hostile.inject(onBlob({ kind: "truncate", afterBytes: 400_000 }));
    hostile.inject((request) => (request.headers["range"] ? { kind: "ignoreRange" } : undefined), Infinity);
    await assert.rejects(readAll(store.blobStream(layer)), { code: "UNAVAILABLE", message: /ignores ranges/ });
  });

  for (const at of [0, 500_000, 999_999]) {
    it(`finds a flipped bit at ${at}`, async () => {
      hostile.inject(onBlob({ kind: "corrupt", at }));
      await assert.rejects(readAll(store.blobStream(layer)), { code: "CORRUPT", message: /expected sha256:/ });
    });
  }

  it("stops reading what is longer than its descriptor", async () => {
    const longer = Buffer.concat([bytes, bytes]);
    hostile.inject(onBlob({ kind: "answer", status: 200, headers: { "transfer-encoding": "chunked" }, body: longer }));
    await assert.rejects(readAll(store.blobStream(layer)), { code: "CORRUPT", message: /longer than the 1000000 bytes/ });
  });

  it("refuses a blob of another length at once", async () => {
    hostile.inject(onBlob({ kind: "answer", status: 200, body: bytes.subarray(1) }));
    await assert.rejects(readAll(store.blobStream(layer)), { code: "CORRUPT", message: /999999 bytes, its descriptor says 1000000/ });
    assert.equal(hostile.seen.length, 1);
  });
});

describe("reading ranges of a blob", () => {
  const read = async (offset: number, length: number, from = store): Promise<Buffer> =>
    Buffer.from(await (await from.blobSource(layer)).read(offset, length));

  it("takes one request for each", async () => {
    assert.deepEqual(await read(1000, 2000), bytes.subarray(1000, 3000));
    assert.deepEqual(
      hostile.seen.map(({ method, headers }) => `${method} ${headers["range"]}`),
      ["GET bytes=1000-2999"],
    );
  });

  it("refuses a whole blob in place of a range", async () => {
    hostile.inject(onBlob({ kind: "ignoreRange" }), Infinity);
    await assert.rejects(read(1000, 10), { code: "UNAVAILABLE", message: /ignores ranges/ });
    await assert.rejects(read(0, 10), { code: "UNAVAILABLE", message: /ignores ranges/ });
    assert.deepEqual(await read(0, bytes.length), bytes);
  });

  for (const [what, header] of [
    ["another place", "bytes 1001-1009/1000000"],
    ["fewer bytes", "bytes 1000-1005/1000000"],
    ["nonsense", "pages 1-2/3"],
  ]) {
    it(`asks again when Content-Range names ${what}`, async () => {
      hostile.inject(onBlob({ kind: "headers", headers: { "content-range": header } }));
      assert.deepEqual(await read(1000, 10), bytes.subarray(1000, 1010));
      assert.equal(hostile.seen.length, 2);
      hostile.inject(onBlob({ kind: "headers", headers: { "content-range": header } }), Infinity);
      await assert.rejects(read(1000, 10), { code: "UNAVAILABLE", message: /Content-Range/ });
    });
  }

  it("refuses a range of a blob of another size", async () => {
    hostile.inject(onBlob({ kind: "headers", headers: { "content-range": "bytes 1000-1009/1000001" } }));
    await assert.rejects(read(1000, 10), { code: "CORRUPT", message: /1000001 bytes/ });
  });

  for (const fault of [
    { kind: "truncate", afterBytes: 5 },
    { kind: "reset" },
    { kind: "stall", afterBytes: 5 },
    { kind: "answer", status: 503 },
  ] satisfies Fault[]) {
    it(`asks again after ${fault.kind}`, async () => {
      const impatient = openStore({ timeouts: { stallMs: 50 } });
      hostile.inject(onBlob(fault), 2);
      assert.deepEqual(await read(1000, 10, impatient), bytes.subarray(1000, 1010));
      assert.equal(hostile.seen.length, 3);
    });
  }

  it("fails at once when its store is closed", async () => {
    const closing = openStore();
    const source = await closing.blobSource(layer);
    hostile.inject(onBlob({ kind: "stall", afterBytes: 1 }));
    const reading = source.read(0, 100);
    while (hostile.seen.length === 0) await new Promise(setImmediate);
    await closing.close();
    await assert.rejects(reading, { code: "UNAVAILABLE" });
    await assert.rejects(source.read(0, 100), { code: "UNAVAILABLE", message: /closed on this side/ });
    assert.deepEqual(pauses, []);
  });

  it("fails reads that are running when it is closed", async () => {
    const source = await store.blobSource(layer);
    hostile.inject(onBlob({ kind: "stall", afterBytes: 1 }));
    const reading = source.read(0, 100);
    await source.close();
    await assert.rejects(reading, { code: "UNAVAILABLE", message: /was closed/ });
  });
});

describe("the signal of a store", () => {
  it("ends streams, ranges, documents and waits that are under way, with its reason", async () => {
    const controller = new AbortController();
    const reason = new Error("interrupted");
    const ending = openStore({ signal: controller.signal, retry: { tries: 3, firstDelayMs: 600_000, maxDelayMs: 600_000 } });
    const source = await ending.blobSource(layer);
    hostile.inject(onBlob({ kind: "stall", afterBytes: 1 }), 2);
    hostile.inject(onManifest({ kind: "answer", status: 500 }));
    const own = new AbortController();
    const running = [readAll(ending.blobStream(layer, { signal: own.signal })), source.read(5, 10), ending.resolve({ tag: "v1" })].map(
      async (call) => assert.rejects(call, (error) => error === reason),
    );
    while (hostile.seen.length < 3 || pauses.length < 1) await new Promise((resolve) => setTimeout(resolve, 5));
    controller.abort(reason);
    await Promise.all(running);
  });
});

describe("fetching manifests and configs", () => {
  it("resolves a tag with one request", async () => {
    const { descriptor, bytes: found } = await store.resolve({ tag: "v1" });
    assert.deepEqual(Buffer.from(found), Buffer.from(manifestBytes));
    assert.deepEqual(descriptor, { mediaType: OCI_MANIFEST, digest: digestOf(manifestBytes), size: manifestBytes.length });
    assert.deepEqual(
      hostile.seen.map(({ method, url }) => `${method} ${url}`),
      ["GET /v2/faults/image/manifests/v1"],
    );
  });

  it("refuses what is not what the registry says is under the tag, and names the tag", async () => {
    hostile.inject(onManifest({ kind: "headers", headers: { "docker-content-digest": layer.digest } }));
    await assert.rejects(store.resolve({ tag: "v1" }), (error) => {
      assert.ok(error instanceof LazyError && error.code === "CORRUPT", String(error));
      const said = `${hostile.host}/faults/image:v1: content has digest ${digestOf(manifestBytes)}, expected ${layer.digest}`;
      assert.ok(error.message.startsWith(said) && error.message.includes("; try again"), error.message);
      return true;
    });
    hostile.inject(onManifest({ kind: "corrupt", at: 40 }));
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "CORRUPT", message: /image:v1: content has digest/ });
    assert.equal(hostile.seen.length, 2);
  });

  for (const [what, stated] of [
    ["of another algorithm", `sha512:${"0".repeat(128)}`],
    ["that is no digest", "yes"],
    ["that is empty", ""],
  ]) {
    it(`takes a tag's document by its hash where the registry states a digest ${what}`, async () => {
      hostile.inject(onManifest({ kind: "headers", headers: { "docker-content-digest": stated } }));
      assert.equal((await store.resolve({ tag: "v1" })).descriptor.digest, digestOf(manifestBytes));
      assert.equal(hostile.seen.length, 1);
    });
  }

  it("says of an old manifest that it is old, although its digest is that of a part of it", async () => {
    const headers = { "content-type": "application/vnd.docker.distribution.manifest.v1+prettyjws", "docker-content-digest": layer.digest };
    hostile.inject(onManifest({ kind: "answer", status: 200, headers, body: `{"schemaVersion":1}` }));
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "UNSUPPORTED", message: /image:v1: .*schema 1/ });
  });

  it("hashes what it gets by digest, whatever the registry says about it", async () => {
    const other = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] });
    const digest = digestOf(manifestBytes);
    const headers = { "content-type": OCI_MANIFEST, "docker-content-digest": digest };
    hostile.inject(onManifest({ kind: "answer", status: 200, headers, body: other }), 2);
    await assert.rejects(store.resolve({ tag: "v1", digest }), { code: "CORRUPT" });
    await assert.rejects(store.manifest({ mediaType: OCI_MANIFEST, digest, size: other.length }), { code: "CORRUPT" });
  });

  it("refuses a corrupted config", async () => {
    hostile.inject(onBlob({ kind: "corrupt", at: 3 }));
    await assert.rejects(store.blob(config), { code: "CORRUPT" });
  });

  it("refuses an oversized manifest, announced or not", async () => {
    const body = Buffer.alloc((4 << 20) + 1, 0x20);
    hostile.inject(onManifest({ kind: "answer", status: 200, headers: { "content-type": OCI_MANIFEST }, body }));
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "CORRUPT", message: /4194305 bytes, expected at most 4194304/ });
    const headers = { "content-type": OCI_MANIFEST, "transfer-encoding": "chunked" };
    hostile.inject(onManifest({ kind: "answer", status: 200, headers, body }));
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "CORRUPT" });
  });

  it("takes the type from the document when the server names none", async () => {
    hostile.inject(onManifest({ kind: "headers", headers: { "content-type": "application/octet-stream" } }));
    assert.equal((await store.resolve({ tag: "v1" })).descriptor.mediaType, OCI_MANIFEST);
  });

  it("waits as long as Retry-After says", async () => {
    hostile.inject(onManifest({ kind: "answer", status: 429, headers: { "retry-after": "1" } }));
    await store.resolve({ tag: "v1" });
    assert.deepEqual([hostile.seen.length, pauses], [2, [1000]]);
  });

  it("does not wait longer than the caller allows", async () => {
    hostile.inject(onManifest({ kind: "answer", status: 429, headers: { "retry-after": "3" } }));
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "UNAVAILABLE", status: 429, retryAfterMs: 3000 });
    assert.equal(hostile.seen.length, 1);
  });

  it("goes on after two errors of the server", async () => {
    hostile.inject(onManifest({ kind: "answer", status: 500 }), 2);
    await store.resolve({ tag: "v1" });
    assert.equal(hostile.seen.length, 3);
  });

  for (const [status, code, tries] of [
    [500, "UNAVAILABLE", 3],
    [408, "UNAVAILABLE", 3],
    [404, "NOT_FOUND", 1],
    [403, "DENIED", 1],
    [401, "DENIED", 1],
  ] as const) {
    it(`reports a lasting ${status} as ${code} after ${tries} tries`, async () => {
      const body = JSON.stringify({ errors: [{ code: "SOME_CODE", message: "some\u0007words" }] });
      hostile.inject(onManifest({ kind: "answer", status, body }), Infinity);
      await assert.rejects(store.resolve({ tag: "v1" }), { code, status, message: /SOME_CODE/ });
      assert.equal(hostile.seen.length, tries);
    });
  }

  it("says that nothing listens there", async () => {
    const nobody = await startHostileRegistry();
    await nobody.stop();
    const lost = openRegistryStore({ kind: "registry", host: nobody.host, repository: "x" }, { retry: { tries: 2, firstDelayMs: 1 } });
    await assert.rejects(lost.resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /connection refused/ });
    await lost.close();
  });
});
