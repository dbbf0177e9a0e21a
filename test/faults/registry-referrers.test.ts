import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { referrersTag } from "../../src/oci/referrers.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";

let registry: DockerRegistry;
let hostile: HostileRegistry;
let store: ImageStore;
let other: ImageStore;
let subjects = 0;

const openStore = (host: string): ImageStore =>
  openRegistryStore({ kind: "registry", host, repository: "referrers" }, { retry: { tries: 2, firstDelayMs: 1 } });

before(async () => {
  registry = await startDockerRegistry();
  hostile = await startHostileRegistry(registry.host);
  [store, other] = [openStore(hostile.host), openStore(registry.host)];
});
afterEach(() => hostile.reset());
after(async () => {
  for (const opened of [store, other]) await opened.close();
  await hostile.stop();
  await registry.stop();
});

const newSubject = (): Descriptor => ({ mediaType: OCI_MANIFEST, digest: digestOf(Buffer.from(`subject ${subjects++}`)), size: 9 });
const attach = async (to: ImageStore, subject: Descriptor, artifactType: string): Promise<Descriptor> =>
  await to.putManifest(encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, artifactType, subject, manifests: [] }), OCI_INDEX, {});
const typesOf = async (subject: Descriptor): Promise<string[]> =>
  (await other.referrers(subject.digest)).map(({ artifactType = "" }) => artifactType).toSorted();
const isListWrite = (subject: Descriptor) => (request: { method: string; url: string }) =>
  request.method === "PUT" && request.url.endsWith(referrersTag(subject.digest));

describe("a registry without a referrers API", () => {
  it("gets a list under the tag of the specification, which others can read", async () => {
    const subject = newSubject();
    const { digest } = await attach(store, subject, "t/a");
    const { descriptor, bytes } = await other.resolve({ tag: `sha256-${subject.digest.slice(7)}` });
    assert.equal(descriptor.mediaType, OCI_INDEX);
    const { manifests } = JSON.parse(Buffer.from(bytes).toString()) as { manifests: object[] };
    assert.deepEqual(
      manifests.map((entry) => ({ ...entry, size: 0 })),
      [{ mediaType: OCI_INDEX, digest, size: 0, artifactType: "t/a" }],
    );
  });

  it("keeps what others enter while a list is read, and while it is written", async () => {
    const subject = newSubject();
    await attach(store, subject, "t/a");
    let reads = 0;
    let racing: Promise<unknown> | undefined;
    hostile.inject(({ method, url }) => {
      if (method !== "GET" || !url.endsWith(referrersTag(subject.digest))) return undefined;
      if (++reads === 1) racing = attach(other, subject, "t/b");
      // The second read is the one right before the write.
      return reads === 2 && racing ? { kind: "wait", until: racing } : undefined;
    }, Infinity);
    await attach(store, subject, "t/c");
    await racing;
    await attach(store, subject, "t/c");
    assert.deepEqual(await typesOf(subject), ["t/a", "t/b", "t/c"]);
  });

  it("is written to again when a write was lost to another", async () => {
    const subject = newSubject();
    // As if another list had been written right after ours: the registry says yes, and has something else.
    hostile.inject((request) => (isListWrite(subject)(request) ? { kind: "answer", status: 201 } : undefined));
    await attach(store, subject, "t/a");
    assert.deepEqual(await typesOf(subject), ["t/a"]);
    assert.equal(hostile.seen.filter(isListWrite(subject)).length, 2);
  });

  it("that never keeps the list is an error that says so, and not silence", async () => {
    const subject = newSubject();
    hostile.inject((request) => (isListWrite(subject)(request) ? { kind: "answer", status: 201 } : undefined), Infinity);
    await assert.rejects(attach(store, subject, "t/a"), { code: "UNAVAILABLE", message: /is stored, but not listed as a referrer/ });
  });

  it("has a tag of that name on an image: it is left alone", async () => {
    const subject = newSubject();
    const config = Buffer.from("{}");
    const descriptor = { mediaType: OCI_LAYER_TAR, digest: digestOf(config), size: 2 };
    await other.putBlob(descriptor, new MemorySource(config));
    const image = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: descriptor, layers: [] });
    const stored = await other.putManifest(image, OCI_MANIFEST, { tag: referrersTag(subject.digest) });
    await assert.rejects(attach(store, subject, "t/a"), { code: "UNSUPPORTED", message: /is an image, expected a list of referrers/ });
    assert.deepEqual((await other.resolve({ tag: referrersTag(subject.digest) })).descriptor, stored);
  });

  it("may keep a list that claims to belong to something: it is not followed round and round", async () => {
    const subject = newSubject();
    const looped = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
    await other.putManifest(looped, OCI_INDEX, { tag: referrersTag(subject.digest) });
    const claiming = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, subject, manifests: [] });
    hostile.inject(({ method, url }) => {
      const isList = method === "GET" && url.endsWith(referrersTag(subject.digest));
      return isList ? { kind: "answer", status: 200, headers: { "content-type": OCI_INDEX }, body: claiming } : undefined;
    }, 2);
    await attach(store, subject, "t/a");
    assert.deepEqual(await typesOf(subject), ["t/a"]);
  });
});

describe("a list of referrers", () => {
  const page = (link: string, body: object = { schemaVersion: 2, manifests: [] }): void =>
    hostile.inject(
      ({ url }) =>
        url.includes("/referrers/") ? { kind: "answer", status: 200, headers: { link }, body: JSON.stringify(body) } : undefined,
      Infinity,
    );

  for (const link of [
    "<http://127.0.0.1:9/v2/x>; rel=next",
    '<//evil.example/v2/x>; rel="next"',
    '<http://u:p@x/>; rel="next"',
    "<http://>; rel=next",
  ]) {
    it(`is not followed to another place: ${link}`, async () => {
      page(link);
      await assert.rejects(store.referrers(newSubject().digest), { code: "DENIED", message: /goes on at another place/ });
      assert.equal(hostile.seen.length, 1);
    });
  }

  it("without an end is given up", async () => {
    page('</v2/referrers/referrers/x?page=2>; rel="next"');
    await assert.rejects(store.referrers(newSubject().digest), { code: "CORRUPT", message: /does not end/ });
  });

  for (const [what, body] of [
    ["is an image", { schemaVersion: 2, layers: [] }],
    ["is both an index and an image", { schemaVersion: 2, layers: [], manifests: [] }],
    ["has digests that are paths", { schemaVersion: 2, manifests: [{ mediaType: OCI_INDEX, digest: "sha256:../..", size: 1 }] }],
  ] as const) {
    it(`that ${what} is refused`, async () => {
      page("", body);
      await assert.rejects(store.referrers(newSubject().digest), { code: "CORRUPT" });
    });
  }
});
