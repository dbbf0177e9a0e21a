import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { selectImage } from "../../src/oci/image-selection.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_CONFIG, OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";

const FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const platform = { os: "linux", architecture: "amd64" };
let registry: ReferrersRegistry;
let front: HostileRegistry;
let stranger: HostileRegistry;
let store: ImageStore;

before(async () => {
  registry = await startReferrersRegistry();
  [front, stranger] = [await startHostileRegistry(registry.host), await startHostileRegistry()];
  store = openRegistryStore(
    { kind: "registry", host: front.host, repository: "trust" },
    { credentials: new FixedCredentials("me", "hunter2"), retry: { tries: 2, firstDelayMs: 1 } },
  );
});
afterEach(() => {
  for (const server of [front, stranger]) server.reset();
});
after(async () => {
  await store.close();
  for (const server of [front, stranger, registry]) await server.stop();
});

describe("what a registry says is not taken on trust:", () => {
  it("the addresses in a layer's urls are asked for nothing", async () => {
    const bytes = Buffer.from("a foreign layer");
    const layer = { mediaType: FOREIGN, digest: digestOf(bytes), size: bytes.length, urls: [`http://${stranger.host}/layer`] };
    const configBytes = encodeJson({ os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [] } });
    const config = { mediaType: OCI_CONFIG, digest: digestOf(configBytes), size: configBytes.length };
    await store.putBlob(config, new MemorySource(configBytes));
    await store.putManifest(encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] }), OCI_MANIFEST, {
      tag: "foreign",
    });
    const { manifest } = await selectImage(store, { tag: "foreign" }, platform);
    await assert.rejects(store.blobStream(manifest.layers[0])[Symbol.asyncIterator]().next(), { code: "NOT_FOUND" });
    await assert.rejects((await store.blobSource(manifest.layers[0])).read(0, 1), { code: "NOT_FOUND" });
    assert.deepEqual(stranger.seen, []);
  });

  it("a document that is an image to one reader and an index to another is refused, as whatever it is declared", async () => {
    const both = encodeJson({ schemaVersion: 2, config: {}, layers: [], manifests: [] });
    for (const mediaType of [OCI_MANIFEST, OCI_INDEX]) {
      front.inject(() => ({ kind: "answer", status: 200, headers: { "content-type": mediaType }, body: both }));
      await assert.rejects(selectImage(store, { tag: "both" }, platform), { code: "CORRUPT", message: /both layers and manifests/ });
    }
  });

  it("a digest that was asked for counts, and not the one that is claimed", async () => {
    const [wanted, sent] = [digestOf(Buffer.from("wanted")), encodeJson({ schemaVersion: 2, manifests: [] })];
    const headers = { "content-type": OCI_INDEX, "docker-content-digest": wanted };
    front.inject(() => ({ kind: "answer", status: 200, headers, body: sent }), Infinity);
    await assert.rejects(store.resolve({ digest: wanted }), { code: "CORRUPT" });
    await assert.rejects(store.resolve({ tag: "v1", digest: wanted }), { code: "CORRUPT" });
  });

  for (const [what, realm] of [
    ["in another domain", "https://tokens.evil.example/x"],
    ["with a user in its address", "http://user@127.0.0.1:9/x"],
    ["that looks like the registry", "http://127.0.0.1@evil.example/x"],
    ["at a link-local address", "http://169.254.169.254/token"],
    ["at a link-local address written as a number", "http://2852039166/token"],
    ["that is no web address", "file:///etc/passwd"],
  ] as const) {
    it(`a token service ${what} gets no password, and nothing shows it`, async () => {
      const events: unknown[] = [];
      const fresh = openRegistryStore(
        { kind: "registry", host: front.host, repository: "trust" },
        {
          credentials: new FixedCredentials("me", "hunter2"),
          observer: { answered: (event) => events.push(event), waiting: (event) => events.push(event) },
        },
      );
      front.inject(() => ({ kind: "answer", status: 401, headers: { "www-authenticate": `Bearer realm="${realm}"` } }), Infinity);
      await assert.rejects(fresh.resolve({ tag: "v1" }), (error: Error) => {
        assert.ok(!JSON.stringify([error, error.message, error.stack, events]).includes("hunter2"));
        return "code" in error && error.code === "DENIED" && error.message.includes("no credentials were sent");
      });
      assert.deepEqual(
        front.seen.map(({ headers }) => headers["authorization"]),
        [undefined],
      );
      await fresh.close();
    });
  }

  it("text in an answer is shown without control characters, and cut", async () => {
    const body = JSON.stringify({ errors: [{ code: "DENIED", message: `\u001b[31mred${"x".repeat(5000)}` }] }).replace("\\u001b", "\u001b");
    front.inject(() => ({ kind: "answer", status: 403, body }), Infinity);
    await assert.rejects(
      store.hasBlob(digestOf(Buffer.from("x"))).then(async () => await store.resolve({ tag: "v1" })),
      (error: Error) => {
        return !error.message.includes("\u001b") && error.message.length < 500;
      },
    );
  });
});
