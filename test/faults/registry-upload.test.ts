import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore, StoredBlob } from "../../src/oci/image-store.ts";
import { OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type Fault, type HostileRegistry } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";

let registry: DockerRegistry;
let hostile: HostileRegistry;
let store: ImageStore;

const openStore = (repository: string): ImageStore =>
  openRegistryStore({ kind: "registry", host: hostile.host, repository }, { retry: { tries: 3, firstDelayMs: 1, maxDelayMs: 2 } });

function newBlob(size: number): { descriptor: Descriptor; content: MemorySource } {
  const bytes = randomBytes(size);
  return { descriptor: { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size }, content: new MemorySource(bytes) };
}

const methods = (): string => hostile.seen.map(({ method }) => method).join(" ");

before(async () => {
  registry = await startDockerRegistry();
  hostile = await startHostileRegistry(registry.host);
  store = openStore("upload/image");
});
afterEach(() => hostile.reset());
after(async () => {
  await store.close();
  await hostile.stop();
  await registry.stop();
});

describe("uploading a blob", () => {
  it("takes a look, a session and one body", async () => {
    const { descriptor, content } = newBlob(2_500_000);
    assert.equal(await store.putBlob(descriptor, content), "uploaded");
    assert.equal(methods(), "HEAD POST PUT");
    assert.equal(hostile.seen[2].headers["content-length"], "2500000");
    assert.equal(await store.putBlob(descriptor, content), "exists");
    assert.equal(methods(), "HEAD POST PUT HEAD GET");
  });

  it("sends what is put several times at once only once, and again if that fails", async () => {
    const { descriptor, content } = newBlob(100_000);
    const put = async (): Promise<string> => await store.putBlob(descriptor, content).catch((error: unknown) => String(error));
    hostile.inject(({ method }) => (method === "POST" ? { kind: "answer", status: 403 } : undefined));
    const [first, ...others] = await Promise.all([put(), put(), put()]);
    assert.match(first, /403/);
    assert.deepEqual(others, ["uploaded", "exists"]);
    assert.equal(methods(), "HEAD POST HEAD POST PUT HEAD GET");
  });

  it("starts over with a new session after an error or a broken connection", async () => {
    const { descriptor, content } = newBlob(2_500_000);
    hostile.inject(({ method }) => (method === "PUT" ? { kind: "answer", status: 500 } : undefined));
    hostile.inject(({ method }) => (method === "PUT" ? { kind: "resetUpload", afterBytes: 500_000 } : undefined));
    assert.equal(await store.putBlob(descriptor, content), "uploaded");
    assert.equal(methods(), "HEAD POST PUT GET POST PUT POST PUT");
    assert.equal(await store.hasBlob(descriptor.digest, descriptor.size), true);
  });

  it("starts over when the session is gone", async () => {
    const { descriptor, content } = newBlob(1000);
    hostile.inject(({ method }) => (method === "PUT" ? { kind: "answer", status: 404 } : undefined));
    assert.equal(await store.putBlob(descriptor, content), "uploaded");
    assert.equal(methods(), "HEAD POST PUT POST PUT");
  });

  it("sends pieces to a registry that refuses large bodies", async () => {
    const { descriptor, content } = newBlob(9_000_000);
    hostile.inject(({ method, headers }) => {
      const large = method === "PUT" && Number(headers["content-length"]) > 8 << 20;
      return large ? { kind: "answer", status: 413 } : undefined;
    }, Infinity);
    assert.equal(await store.putBlob(descriptor, content), "uploaded");
    assert.match(methods(), /^HEAD POST PUT POST PATCH PATCH PUT$/);
    assert.deepEqual(
      hostile.seen.flatMap(({ headers }) => headers["content-range"] ?? []),
      ["0-8388607", "8388608-8999999"],
    );
    assert.equal(await store.hasBlob(descriptor.digest, descriptor.size), true);
  });

  it("checks the content itself, also when the registry would take anything", async () => {
    await using credulous = await startHostileRegistry(registry.host);
    credulous.inject(({ method }) => (method === "PUT" ? { kind: "answer", status: 201 } : undefined));
    const fooled = openRegistryStore({ kind: "registry", host: credulous.host, repository: "upload/image" });
    const { descriptor } = newBlob(1_500_000);
    const other = newBlob(1_500_000).content;
    await assert.rejects(fooled.putBlob(descriptor, other), { code: "CORRUPT", message: /content to upload has digest/ });
    await fooled.close();
  });

  it("gives up after its tries and when it is denied", async () => {
    const { descriptor, content } = newBlob(1000);
    hostile.inject(({ method }) => (method === "PUT" ? { kind: "reset" } : undefined), Infinity);
    await assert.rejects(store.putBlob(descriptor, content), { code: "UNAVAILABLE" });
    assert.equal(methods(), "HEAD POST PUT GET POST PUT GET POST PUT");
    hostile.reset();
    hostile.inject(({ method }) => (method === "POST" ? { kind: "answer", status: 403 } : undefined), Infinity);
    await assert.rejects(store.putBlob(descriptor, content), { code: "DENIED", status: 403 });
    assert.equal(methods(), "HEAD POST");
    assert.equal(await store.hasBlob(descriptor.digest), false);
  });

  it("stops when it is aborted", async () => {
    const { descriptor, content } = newBlob(3_000_000);
    const reason = new Error("enough");
    const controller = new AbortController();
    const read = content.read.bind(content);
    content.read = async (offset, length) => {
      if (offset > 0) controller.abort(reason);
      return await read(offset, length);
    };
    await assert.rejects(store.putBlob(descriptor, content, { signal: controller.signal }), (error) => error === reason);
    assert.equal(await store.hasBlob(descriptor.digest), false);
  });
});

describe("uploading what nobody has hashed", () => {
  let repositories = 0;
  const requests = (): string => hostile.seen.map(({ method, url }) => (url.includes("/tags/list") ? "TAGS" : method)).join(" ");
  const unhashed = async (content: MemorySource, into: ImageStore): Promise<StoredBlob | undefined> =>
    await into.putUnhashed(content, { identity: "layer" });
  const fresh = (): ImageStore => openStore(`unhashed/r${repositories++}`);

  it("asks once whether the repository has images, and sends content, then its digest", async () => {
    await using target = closing(fresh());
    for (const _ of [1, 2]) {
      const { descriptor, content } = newBlob(2_500_000);
      assert.deepEqual(await unhashed(content, target.store), { digest: descriptor.digest, result: "uploaded" });
      assert.equal(await target.store.hasBlob(descriptor.digest, descriptor.size), true);
    }
    assert.equal(requests(), "TAGS POST PATCH PUT GET POST PATCH PUT GET");
  });

  it("is left to who knows its digest in a repository with an image, or when nobody says that there is none", async () => {
    const repository = `unhashed/r${repositories++}`;
    const { content } = newBlob(1000);
    for (const answer of [
      { status: 200, body: '{"tags":["v1"]}' },
      { status: 200, body: `{"tags":[${'"v",'.repeat(30_000)}"v"]}` },
      { status: 200, body: "tags" },
      { status: 200, body: "{}" },
      { status: 403 },
      { status: 405 },
    ]) {
      await using target = closing(openStore(repository));
      hostile.inject(({ url }) => (url.includes("/tags/list") ? { kind: "answer", ...answer } : undefined));
      assert.equal(await unhashed(content, target.store), undefined, JSON.stringify(answer).slice(0, 100));
    }
    {
      await using target = closing(openStore(repository));
      assert.notEqual(await unhashed(content, target.store), undefined);
      const config = newBlob(10);
      await target.store.putBlob(config.descriptor, config.content);
      const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: config.descriptor, layers: [] };
      await target.store.putManifest(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, { tag: "v1" });
    }
    await using target = closing(openStore(repository));
    hostile.reset();
    assert.equal(await unhashed(content, target.store), undefined);
    assert.equal(requests(), "TAGS");
  });

  it("starts over after an error or a broken connection", async () => {
    await using target = closing(fresh());
    const { descriptor, content } = newBlob(2_500_000);
    hostile.inject(({ method }) => (method === "PATCH" ? { kind: "answer", status: 500 } : undefined));
    hostile.inject(({ method }) => (method === "PATCH" ? { kind: "resetUpload", afterBytes: 500_000 } : undefined));
    assert.deepEqual(await unhashed(content, target.store), { digest: descriptor.digest, result: "uploaded" });
    assert.equal(requests(), "TAGS POST PATCH GET POST PATCH POST PATCH PUT");
    assert.equal(await target.store.hasBlob(descriptor.digest, descriptor.size), true);
  });

  for (const status of [400, 404, 405, 415, 501]) {
    it(`goes as one body behind its digest to a registry that answers pieces with ${status}`, async () => {
      await using target = closing(fresh());
      const { descriptor, content } = newBlob(2_500_000);
      hostile.inject(({ method }) => (method === "PATCH" ? { kind: "answer", status } : undefined), Infinity);
      assert.deepEqual(await unhashed(content, target.store), { digest: descriptor.digest, result: "uploaded" });
      assert.equal(requests(), "TAGS POST PATCH POST PUT");
    });
  }

  it("goes in smaller pieces to a registry that finds it too large", async () => {
    await using target = closing(fresh());
    const { descriptor, content } = newBlob(9_000_000);
    const isLarge = (length: string | undefined): boolean => Number(length) > 8 << 20;
    hostile.inject(({ headers }) => (isLarge(headers["content-length"]) ? { kind: "answer", status: 413 } : undefined), Infinity);
    assert.deepEqual(await unhashed(content, target.store), { digest: descriptor.digest, result: "uploaded" });
    assert.equal(requests(), "TAGS POST PATCH POST PATCH PATCH PUT");
  });
});

function closing(store: ImageStore): AsyncDisposable & { readonly store: ImageStore } {
  return { store, [Symbol.asyncDispose]: async () => await store.close() };
}

describe("a blob that the registry only says it has", () => {
  /** Without a length, which the answer to HEAD may lack. */
  const claim: Fault = { kind: "answer", status: 200, headers: { "transfer-encoding": "chunked" } };
  const claimAll = (): void => hostile.inject(({ method }) => (method === "HEAD" ? claim : undefined), Infinity);
  const failReads = (status: number): void =>
    hostile.inject(({ method, url }) => (method === "GET" && url.includes("sha256:") ? { kind: "answer", status } : undefined), Infinity);

  it("is not there, and is sent", async () => {
    const { descriptor, content } = newBlob(1000);
    claimAll();
    assert.equal(await store.hasBlob(descriptor.digest, descriptor.size), false);
    assert.equal(await store.putBlob(descriptor, content), "uploaded");
    assert.equal(methods(), "GET HEAD GET POST PUT");
    assert.equal(hostile.seen[0].headers["range"], "bytes=0-0");
    assert.equal(await store.hasBlob(descriptor.digest, descriptor.size), true);
    assert.equal(await store.putBlob(descriptor, content), "exists");
  });

  it("is mounted from elsewhere, if it can be read then", async () => {
    const { descriptor, content } = newBlob(1000);
    await store.putBlob(descriptor, content);
    const other = openStore("upload/claimed");
    claimAll();
    assert.equal(await other.mountBlob(descriptor, "upload/nothing"), false);
    hostile.reset();
    claimAll();
    assert.equal(await other.mountBlob(descriptor, "upload/image"), true);
    assert.equal(methods(), "HEAD GET POST GET");
    failReads(404);
    assert.equal(await other.mountBlob(descriptor, "upload/image"), false);
    await other.close();
  });

  for (const status of [403, 500]) {
    it(`is sent when reading it fails with ${status}`, async () => {
      const { descriptor, content } = newBlob(1000);
      await store.putBlob(descriptor, content);
      failReads(status);
      await assert.rejects(store.hasBlob(descriptor.digest), { code: status === 403 ? "DENIED" : "UNAVAILABLE", status });
      assert.equal(await store.putBlob(descriptor, content), "uploaded");
    });
  }

  it("is there when it is empty, or when ranges are ignored", async () => {
    const [empty, other] = [newBlob(0), newBlob(100_000)];
    for (const { descriptor, content } of [empty, other]) {
      await store.putBlob(descriptor, content);
      hostile.inject(({ method }) => (method === "GET" ? { kind: "ignoreRange" } : undefined));
      assert.equal(await store.putBlob(descriptor, content), "exists");
      assert.equal(await store.hasBlob(descriptor.digest, descriptor.size), true);
    }
  });
});

describe("mounting a blob", () => {
  it("takes it over from another repository, of a host with a port, without sending it", async () => {
    const { descriptor, content } = newBlob(1000);
    await store.putBlob(descriptor, content);
    hostile.reset();
    const other = openStore("upload/other");
    assert.equal(await other.mountBlob(descriptor, "upload/image"), true);
    assert.equal(methods(), "HEAD POST GET");
    assert.equal(hostile.seen[1].url, `/v2/upload/other/blobs/uploads/?mount=${encodeURIComponent(descriptor.digest)}&from=upload%2Fimage`);
    assert.equal(await other.hasBlob(descriptor.digest, descriptor.size), true);
    hostile.reset();
    assert.equal(await other.mountBlob(descriptor, "upload/image"), true);
    assert.equal(methods(), "HEAD GET");
    await other.close();
  });

  it("that the other repository does not hold leaves no upload behind", async () => {
    const { descriptor } = newBlob(1000);
    const fresh = openStore("upload/fresh");
    assert.equal(await fresh.mountBlob(descriptor, "upload/nothing"), false);
    assert.equal(methods(), "HEAD POST DELETE");
    const uploads = join(registry.directory, "docker/registry/v2/repositories/upload/fresh/_uploads");
    const left = await readdir(uploads, { recursive: true });
    assert.deepEqual(
      left.filter((name) => /startedat|data/.test(name)),
      [],
    );
    hostile.reset();
    hostile.inject(({ method }) => (method === "DELETE" ? { kind: "answer", status: 405 } : undefined));
    assert.equal(await fresh.mountBlob(descriptor, "upload/nothing"), false);
    hostile.reset();
    assert.equal(await fresh.mountBlob(descriptor, "upload/fresh"), false);
    assert.equal(methods(), "HEAD");
    await fresh.close();
  });

  for (const status of [400, 403, 404, 405]) {
    it(`that is answered with ${status} is no error`, async () => {
      hostile.inject(({ method }) => (method === "POST" ? { kind: "answer", status } : undefined));
      assert.equal(await store.mountBlob(newBlob(1000).descriptor, "upload/secret"), false);
      assert.equal(methods(), "HEAD POST");
    });
  }

  it("is tried again when the registry fails, and fails when it goes on failing", async () => {
    const { descriptor } = newBlob(1000);
    const fail = (times: number): void =>
      hostile.inject(({ method }) => (method === "POST" ? { kind: "answer", status: 503 } : undefined), times);
    fail(1);
    assert.equal(await store.mountBlob(descriptor, "upload/nothing"), false);
    assert.equal(methods(), "HEAD POST POST DELETE");
    fail(Infinity);
    await assert.rejects(store.mountBlob(descriptor, "upload/nothing"), { code: "UNAVAILABLE", status: 503 });
  });

  it("cancels no upload at another place", async () => {
    await using stranger = await startHostileRegistry();
    const headers = { location: `http://${stranger.host}/v2/upload/1` };
    hostile.inject(({ method }) => (method === "POST" ? { kind: "answer", status: 202, headers } : undefined));
    assert.equal(await store.mountBlob(newBlob(1000).descriptor, "upload/nothing"), false);
    assert.deepEqual(stranger.seen, []);
  });

  it("refuses repositories that are none before it asks for anything", async () => {
    const { descriptor } = newBlob(1000);
    for (const from of ["", "127.0.0.1:5000/x", "x:pull,push", "x@sha256:0", "../x", "x y", "X"]) {
      await assert.rejects(store.mountBlob(descriptor, from), { code: "USAGE" }, from);
    }
    assert.equal(methods(), "");
  });

  it("is done by a registry with a referrers API, too", async () => {
    await using conforming = await startReferrersRegistry();
    const open = (repository: string): ImageStore => openRegistryStore({ kind: "registry", host: conforming.host, repository });
    const [one, two] = [open("mount/one"), open("mount/two")];
    const { descriptor, content } = newBlob(1000);
    assert.equal(await two.mountBlob(descriptor, "mount/one"), false);
    await one.putBlob(descriptor, content);
    assert.equal(await two.mountBlob(descriptor, "mount/one"), true);
    assert.equal(await two.hasBlob(descriptor.digest, 1000), true);
    for (const opened of [one, two]) await opened.close();
  });
});

describe("a half-made upload", () => {
  let conforming: ReferrersRegistry;
  let front: HostileRegistry;

  before(async () => {
    conforming = await startReferrersRegistry();
    front = await startHostileRegistry(conforming.host);
  });
  afterEach(() => front.reset());
  after(async () => {
    await front.stop();
    await conforming.stop();
  });
  const openResuming = (uploadChunkBytes?: number): ImageStore => {
    const reference = { kind: "registry", host: front.host, repository: "resume" } as const;
    return openRegistryStore(reference, { uploadChunkBytes, retry: { tries: 4, firstDelayMs: 1 } });
  };
  const ranges = (): string[] => front.seen.flatMap(({ headers }) => headers["content-range"] ?? []);
  const breakBody = (method: string, afterBytes: number, times: number): void =>
    front.inject((request) => (request.method === method ? { kind: "resetUpload", afterBytes } : undefined), times);

  it("goes on where a broken connection ended", async () => {
    const { descriptor, content } = newBlob(9_000_000);
    breakBody("PUT", 4_000_000, 1);
    const resuming = openResuming();
    assert.equal(await resuming.putBlob(descriptor, content), "uploaded");
    assert.match(front.seen.map(({ method }) => method).join(" "), /^HEAD POST PUT GET PATCH PUT$/);
    const [, start, end] = /^(\d+)-(\d+)$/.exec(ranges()[0]) ?? [];
    assert.ok(Number(start) >= 4_000_000 && Number(start) < 5_000_000, ranges()[0]);
    assert.equal(Number(end), 8_999_999);
    assert.equal(await resuming.hasBlob(descriptor.digest, descriptor.size), true);
    await resuming.close();
  });

  it("goes on after each of several broken connections", async () => {
    const { descriptor, content } = newBlob(9_000_000);
    breakBody("PATCH", 2_000_000, 3);
    const resuming = openResuming(4_000_000);
    assert.equal(await resuming.putBlob(descriptor, content), "uploaded");
    assert.equal(front.seen.filter(({ method }) => method === "POST").length, 1);
    assert.equal(await resuming.hasBlob(descriptor.digest, descriptor.size), true);
    await resuming.close();
  });

  for (const [what, status, headers] of [
    ["has forgotten it", 404, {}],
    ["claims more than there is", 204, { range: "0-99999999999" }],
    ["does not say how far it got", 204, {}],
    ["says so in its own way", 204, { range: "all of it" }],
    ["leads elsewhere", 204, { range: "0-999", location: "http://169.254.169.254/x" }],
  ] as const) {
    it(`starts over when the registry ${what}`, async () => {
      const { descriptor, content } = newBlob(3_000_000);
      breakBody("PUT", 1_500_000, 1);
      front.inject(({ method }) => (method === "GET" ? { kind: "answer", status, headers } : undefined));
      const resuming = openResuming();
      assert.equal(await resuming.putBlob(descriptor, content), "uploaded");
      assert.equal(front.seen.map(({ method }) => method).join(" "), "HEAD POST PUT GET POST PUT");
      await resuming.close();
    });
  }

  it("that the registry counts wrongly fails rather than storing something else", async () => {
    const { descriptor, content } = newBlob(3_000_000);
    breakBody("PUT", 1_500_000, Infinity);
    front.inject(
      ({ method }) => (method === "GET" ? { kind: "answer", status: 204, headers: { range: "0-2999999" } } : undefined),
      Infinity,
    );
    const resuming = openResuming();
    await assert.rejects(resuming.putBlob(descriptor, content), { name: "RegistryError" });
    front.reset();
    assert.equal(await resuming.hasBlob(descriptor.digest), false);
    await resuming.close();
  });
});

describe("putting a manifest", () => {
  const bytes = Buffer.from(`{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}","config":{},"layers":[]}`);

  it("is tried again after an error of the server", async () => {
    hostile.inject(() => ({ kind: "answer", status: 201 }));
    hostile.inject(() => ({ kind: "answer", status: 500 }));
    const descriptor = await store.putManifest(bytes, OCI_MANIFEST, { tag: "v1" });
    assert.deepEqual(descriptor, { mediaType: OCI_MANIFEST, digest: digestOf(bytes), size: bytes.length });
    assert.equal(methods(), "PUT PUT");
  });

  it("is tried again when the registry found another digest, as happens while somebody else stores the same blobs", async () => {
    const fault = { kind: "answer", status: 400, body: '{"errors":[{"code":"DIGEST_INVALID","message":"not that"}]}' } as const;
    hostile.inject(() => ({ kind: "answer", status: 201 }));
    hostile.inject(() => fault);
    await store.putManifest(bytes, OCI_MANIFEST, {});
    assert.equal(methods(), "PUT PUT");
    hostile.inject(() => fault, Infinity);
    const refused = { code: "CORRUPT", status: 400, message: /@sha256:.*400 DIGEST_INVALID: not that; gave up after/ };
    await assert.rejects(store.putManifest(bytes, OCI_MANIFEST, {}), refused);
  });

  it("passes on what the registry finds wrong with it", async () => {
    const refused = { code: "CORRUPT", message: /400 MANIFEST_INVALID/ };
    await assert.rejects(store.putManifest(bytes.subarray(1), OCI_MANIFEST, { tag: "v1" }), refused);
    assert.equal(methods(), "PUT");
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "NOT_FOUND" });
  });
});
