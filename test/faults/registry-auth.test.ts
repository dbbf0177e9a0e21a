import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { RegistryOptions } from "../../src/registry/client.ts";
import { FixedCredentials, type Credential, type CredentialSource } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";

const bytes = Buffer.from("a layer of no great length");
const layer = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };
const user = new FixedCredentials(REGISTRY_USER.username, REGISTRY_USER.password);
const stores: ImageStore[] = [];

function openStore(host: string, credentials: CredentialSource | undefined, options: RegistryOptions = {}): ImageStore {
  const reference = { kind: "registry", host, repository: "auth/image", tag: "v1" } as const;
  const store = openRegistryStore(reference, { credentials, retry: { tries: 2, firstDelayMs: 1 }, ...options });
  stores.push(store);
  return store;
}

async function pushImage(store: ImageStore): Promise<void> {
  const config = encodeJson({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } });
  const descriptor = { mediaType: OCI_CONFIG, digest: digestOf(config), size: config.length };
  await store.putBlob(layer, new MemorySource(bytes));
  await store.putBlob(descriptor, new MemorySource(config));
  const manifest = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: descriptor, layers: [layer] });
  await store.putManifest(manifest, OCI_MANIFEST, { tag: "v1" });
}

async function readLayer(store: ImageStore): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of store.blobStream(layer)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

after(async () => {
  for (const store of stores) await store.close();
});

describe("a registry with basic authentication", () => {
  let registry: DockerRegistry;
  let front: HostileRegistry;

  before(async () => {
    registry = await startDockerRegistry({ basicAuth: true });
    front = await startHostileRegistry(registry.host);
  });
  afterEach(() => front.reset());
  after(async () => {
    await front.stop();
    await registry.stop();
  });

  it("is pushed to and pulled from with the right password, challenged once", async () => {
    const store = openStore(front.host, user);
    await pushImage(store);
    assert.equal(front.seen.filter(({ headers }) => headers["authorization"] === undefined).length, 1);
    assert.deepEqual(await readLayer(openStore(registry.host, user)), bytes);
  });

  it("denies strangers and wrong passwords, and says what to do", async () => {
    await assert.rejects(openStore(front.host, undefined).resolve({ tag: "v1" }), { code: "DENIED", status: 401, message: /log in/ });
    assert.equal(front.seen.length, 1);
    front.reset();
    const wrong = openStore(front.host, new FixedCredentials(REGISTRY_USER.username, "hunter2"));
    await assert.rejects(wrong.resolve({ tag: "v1" }), (error: Error) => {
      assert.ok(!error.message.includes("hunter2"));
      return "code" in error && error.code === "DENIED";
    });
    assert.equal(front.seen.length, 2);
  });

  it("is asked again with new credentials when the old ones have expired", async () => {
    const answers: Credential[] = [
      { kind: "basic", ...REGISTRY_USER },
      { kind: "basic", username: "new", password: "newer" },
    ];
    const store = openStore(front.host, { credentialFor: async () => answers.shift() });
    await store.hasBlob(layer.digest);
    front.inject(
      (request) => ({ kind: "answer", status: request.headers["authorization"] === basic("new", "newer") ? 200 : 403 }),
      Infinity,
    );
    assert.equal(await store.hasBlob(layer.digest), true);
    assert.deepEqual(answers, []);
  });
});

describe("a registry with a token service", () => {
  let registry: DockerRegistry;
  let front: HostileRegistry;
  let tokens: HostileRegistry;
  let storage: HostileRegistry;
  let issued: number;

  before(async () => {
    registry = await startDockerRegistry();
    front = await startHostileRegistry(registry.host);
    storage = await startHostileRegistry(registry.host);
    tokens = await startHostileRegistry();
    await pushImage(openStore(registry.host, undefined));
  });
  /** Everybody gets a token for what they ask for; the registry takes any that names the right action, until it is revoked. */
  const serveTokens = (): void => {
    issued = 0;
    tokens.inject((request) => {
      const query = new URL(request.url, "http://x").searchParams;
      const token = `${++issued}-${query.getAll("scope").some((scope) => scope.endsWith("push")) ? "push" : "pull"}`;
      return { kind: "answer", status: 200, body: JSON.stringify({ token, expires_in: 300 }) };
    }, Infinity);
  };
  const challenge = (scope: string): { kind: "answer"; status: number; headers: Record<string, string> } => ({
    kind: "answer",
    status: 401,
    headers: { "www-authenticate": `Bearer realm="http://${tokens.host}/token",service="test",scope="${scope}"` },
  });
  const guard = (accepts: (token: string) => boolean): void =>
    front.inject((request) => {
      const token = /^Bearer (.+)$/.exec(request.headers["authorization"] ?? "")?.[1] ?? "";
      const writes = request.method !== "GET" && request.method !== "HEAD";
      const allowed = accepts(token) && (!writes || token.endsWith("push"));
      return allowed ? undefined : challenge(`repository:auth/image:${writes ? "pull,push" : "pull"}`);
    }, Infinity);
  const redirectBlobs = (to: HostileRegistry): void =>
    front.inject(({ url, headers }) => {
      const redirects = url.includes("/blobs/sha256") && headers["authorization"] !== undefined;
      return redirects ? { kind: "answer", status: 307, headers: { location: `http://${to.host}${url}?signature=x` } } : undefined;
    }, Infinity);
  const authorizations = (requests: readonly SeenRequest[]): (string | undefined)[] =>
    requests.map(({ headers }) => headers["authorization"]);

  afterEach(() => {
    for (const server of [front, tokens, storage]) server.reset();
  });
  after(async () => {
    for (const server of [front, tokens, storage, registry]) await server.stop();
  });

  it("gives a token once, for the repository and service asked for, to whoever has a password", async () => {
    serveTokens();
    guard((token) => token !== "");
    const store = openStore(front.host, user);
    await store.resolve({ tag: "v1" });
    assert.deepEqual(await readLayer(store), bytes);
    assert.equal(tokens.seen.length, 1);
    assert.equal(tokens.seen[0].url, "/token?service=test&scope=repository%3Aauth%2Fimage%3Apull");
    assert.deepEqual(authorizations(tokens.seen), [basic(REGISTRY_USER.username, REGISTRY_USER.password)]);
    assert.deepEqual(authorizations(front.seen), [undefined, "Bearer 1-pull", "Bearer 1-pull"]);
  });

  it("gives strangers tokens too", async () => {
    serveTokens();
    guard((token) => token !== "");
    await openStore(front.host, undefined).resolve({ tag: "v1" });
    assert.deepEqual(authorizations(tokens.seen), [undefined]);
  });

  it("takes one token for a whole upload", async () => {
    serveTokens();
    guard((token) => token !== "");
    await pushImage(openStore(front.host, user));
    assert.equal(tokens.seen.length, 1);
  });

  it("gives a new token before each piece of a long upload that has outlived the last", async () => {
    tokens.inject(() => ({ kind: "answer", status: 200, body: JSON.stringify({ token: `${++issued}-push`, expires_in: 1 }) }), Infinity);
    guard((token) => token !== "");
    const content = Buffer.alloc(10_000, "p");
    const descriptor = { mediaType: OCI_LAYER_TAR, digest: digestOf(content), size: content.length };
    const store = openStore(front.host, user, { uploadChunkBytes: 4000 });
    assert.equal(await store.putBlob(descriptor, new MemorySource(content)), "uploaded");
    const pieces = front.seen.filter(({ method }) => method === "PATCH");
    assert.equal(pieces.length, 3);
    assert.equal(new Set(authorizations(pieces)).size, 3);
    assert.ok(!authorizations(pieces).includes(undefined));
  });

  for (const status of [401, 403]) {
    it(`renews a token that is refused with ${status}, once`, async () => {
      serveTokens();
      guard((token) => token !== "");
      const store = openStore(front.host, user);
      await store.resolve({ tag: "v1" });
      front.inject((request) => {
        const revoked = request.headers["authorization"] === "Bearer 1-pull";
        return revoked ? (status === 401 ? challenge("repository:auth/image:pull") : { kind: "answer", status }) : undefined;
      }, Infinity);
      assert.deepEqual(await readLayer(store), bytes);
      assert.equal(tokens.seen.length, 2);
      front.inject(() => ({ kind: "answer", status }), Infinity);
      await assert.rejects(store.resolve({ tag: "v1" }), { code: "DENIED", status });
      assert.equal(tokens.seen.length, 3);
    });
  }

  it("shares one token among requests that are refused together", async () => {
    serveTokens();
    guard((token) => token !== "");
    const store = openStore(front.host, user);
    await Promise.all(Array.from({ length: 8 }, async () => readLayer(store)));
    assert.equal(tokens.seen.length, 1);
  });

  it("gets a refresh token in a form and not in the address", async () => {
    tokens.inject(() => ({ kind: "answer", status: 200, body: '{"access_token":"1-pull"}' }));
    guard((token) => token !== "");
    const store = openStore(front.host, { credentialFor: async () => ({ kind: "identity-token", token: "refresh-me" }) });
    await store.resolve({ tag: "v1" });
    assert.deepEqual([tokens.seen[0].method, tokens.seen[0].url], ["POST", "/token"]);
    assert.deepEqual(authorizations(tokens.seen), [undefined]);
  });

  for (const [what, reply, code] of [
    ["refuses", { status: 401 }, "DENIED"],
    ["redirects", { status: 302, headers: { location: "http://127.0.0.1:1/" } }, "UNAVAILABLE"],
    ["answers without a token", { status: 200, body: "{}" }, "CORRUPT"],
    ["puts a line break into its token", { status: 200, body: '{"token":"x\\r\\ny: z"}' }, "CORRUPT"],
    ["answers nonsense", { status: 200, body: "<html>" }, "CORRUPT"],
  ] as const) {
    it(`fails with ${code} when the token service ${what}`, async () => {
      tokens.inject(() => ({ kind: "answer", ...reply }), Infinity);
      guard(() => false);
      await assert.rejects(openStore(front.host, user).resolve({ tag: "v1" }), { code });
    });
  }

  it("keeps credentials from the storage it redirects to", async () => {
    serveTokens();
    guard((token) => token !== "");
    redirectBlobs(storage);
    const store = openStore(front.host, user);
    await store.resolve({ tag: "v1" });
    assert.deepEqual(await readLayer(store), bytes);
    assert.equal(await store.hasBlob(layer.digest), true);
    assert.deepEqual(authorizations(storage.seen), [undefined, undefined]);
  });

  it("does not take authorization up again when a redirect leads back", async () => {
    serveTokens();
    guard((token) => token !== "");
    const store = openStore(front.host, user);
    await store.resolve({ tag: "v1" });
    front.inject(
      ({ url }) => ({ kind: "answer", status: url === "/back" ? 200 : 302, headers: { location: `http://${storage.host}/x` } }),
      Infinity,
    );
    storage.inject(() => ({ kind: "answer", status: 302, headers: { location: `http://${front.host}/back` } }));
    await store.hasBlob(layer.digest);
    assert.deepEqual(front.seen.at(-1)?.url, "/back");
    assert.deepEqual(front.seen.at(-1)?.headers["authorization"], undefined);
  });

  it("answers no challenge of the storage", async () => {
    serveTokens();
    guard((token) => token !== "");
    redirectBlobs(storage);
    storage.inject(() => challenge("repository:auth/image:pull"), Infinity);
    const store = openStore(front.host, user);
    await store.resolve({ tag: "v1" });
    await assert.rejects(store.blob(layer), { code: "DENIED" });
    assert.deepEqual([tokens.seen.length, ...authorizations(storage.seen)], [1, undefined]);
  });

  it("reads further ranges from the storage directly, until that refuses", async () => {
    serveTokens();
    guard((token) => token !== "");
    redirectBlobs(storage);
    const store = openStore(front.host, user);
    await store.resolve({ tag: "v1" });
    const source = await store.blobSource(layer);
    front.seen.length = 0;
    for (const offset of [0, 3, 9]) assert.deepEqual(Buffer.from(await source.read(offset, 4)), bytes.subarray(offset, offset + 4));
    assert.deepEqual([front.seen.length, storage.seen.length], [1, 3]);
    storage.inject(() => ({ kind: "answer", status: 403 }));
    assert.deepEqual(Buffer.from(await source.read(5, 4)), bytes.subarray(5, 9));
    assert.deepEqual([front.seen.length, storage.seen.length], [2, 5]);
  });

  for (const [what, location] of [
    ["a link-local address", "http://169.254.169.254/latest"],
    ["an address with a user", "http://me:pw@127.0.0.1:9/x"],
    ["a file", "file:///etc/passwd"],
    ["itself, for ever", undefined],
  ] as const) {
    it(`follows no redirect to ${what}`, async () => {
      front.inject(({ url }) => ({ kind: "answer", status: 302, headers: { location: location ?? url } }), Infinity);
      await assert.rejects(openStore(front.host, user).resolve({ tag: "v1" }), { code: "DENIED" });
      assert.equal(front.seen.length, location === undefined ? 6 : 1);
    });
  }

  it("uploads to another origin without credentials", async () => {
    serveTokens();
    guard((token) => token !== "");
    front.inject(({ method }) =>
      method === "POST" ? { kind: "answer", status: 202, headers: { location: `http://${storage.host}/up?x=1` } } : undefined,
    );
    storage.inject(() => ({ kind: "answer", status: 201 }));
    const other = Buffer.from("another blob");
    const descriptor = { mediaType: OCI_LAYER_TAR, digest: digestOf(other), size: other.length };
    assert.equal(await openStore(front.host, user).putBlob(descriptor, new MemorySource(other)), "uploaded");
    assert.equal(storage.seen[0].url, `/up?x=1&digest=${encodeURIComponent(descriptor.digest)}`);
    assert.deepEqual(authorizations(storage.seen), [undefined]);
  });
});

function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}
