import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { RegistryOptions } from "../../src/registry/client.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";

const manifest = Buffer.from(`{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}","config":{},"layers":[]}`);
const bytes = Buffer.alloc(3_000_000, "text ");
const layer = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };
const stores: ImageStore[] = [];

function openStore(host: string, options: RegistryOptions = {}): ImageStore {
  const store = openRegistryStore({ kind: "registry", host, repository: "a/b" }, { retry: { tries: 3, firstDelayMs: 1 }, ...options });
  stores.push(store);
  return store;
}

after(async () => {
  for (const store of stores) await store.close();
});

describe("a registry with TLS", () => {
  let server: Server;
  let host: string;
  let reply: { status: number; headers: Record<string, string>; body?: Buffer };

  before(async () => {
    const pem = (name: string): Buffer => readFileSync(new URL(`../../testdata/tls/${name}.pem`, import.meta.url));
    server = createServer({ key: pem("key"), cert: pem("certificate") }, (_request, response) => {
      response.writeHead(reply.status, reply.headers).end(reply.body);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    assert.ok(address !== null && typeof address === "object");
    host = `127.0.0.1:${address.port}`;
  });
  after(() => {
    server.close();
    server.closeAllConnections();
  });

  it("is trusted only with a certificate that is known, or when told not to look", async () => {
    reply = { status: 200, headers: { "content-type": OCI_MANIFEST }, body: manifest };
    const pauses: unknown[] = [];
    const careful = openStore(host, { plainHttp: false, observer: { waiting: (pause) => pauses.push(pause) } });
    await assert.rejects(careful.resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /certificate not accepted/ });
    assert.deepEqual(pauses, []);
    const careless = openStore(host, { plainHttp: false, tls: { insecure: true } });
    assert.equal((await careless.resolve({ tag: "v1" })).descriptor.digest, digestOf(manifest));
  });

  it("leads nobody to plain HTTP, neither by redirect nor by token service", async () => {
    const store = openStore(host, { plainHttp: false, tls: { insecure: true }, credentials: new FixedCredentials("u", "p") });
    reply = { status: 302, headers: { location: "http://127.0.0.1:9/x" } };
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "DENIED", message: /from https to http/ });
    reply = { status: 401, headers: { "www-authenticate": 'Bearer realm="http://127.0.0.1:9/token"' } };
    await assert.rejects(store.resolve({ tag: "v1" }), { code: "DENIED", message: /no credentials were sent/ });
  });

  it("is told apart from one without", async () => {
    const plain = await startHostileRegistry();
    await assert.rejects(openStore(plain.host, { plainHttp: false }).resolve({ tag: "v1" }), {
      code: "UNAVAILABLE",
      message: /does not speak TLS/,
    });
    await plain.stop();
  });
});

describe("a proxy", () => {
  let proxy: HostileRegistry;

  before(async () => {
    proxy = await startHostileRegistry();
  });
  afterEach(() => proxy.reset());
  after(async () => proxy.stop());
  const serve = (): void =>
    proxy.inject(() => ({ kind: "answer", status: 200, headers: { "content-type": OCI_MANIFEST }, body: manifest }), Infinity);

  it("is asked for registries elsewhere, with its own credentials and not the registry's", async () => {
    serve();
    const store = openStore("registry.invalid", { plainHttp: true, proxy: { http: `http://me:pw@${proxy.host}` } });
    await store.resolve({ tag: "v1" });
    assert.equal(proxy.seen[0].url, "http://registry.invalid/v2/a/b/manifests/v1");
    assert.equal(proxy.seen[0].headers["proxy-authorization"], `Basic ${Buffer.from("me:pw").toString("base64")}`);
    assert.equal(proxy.seen[0].headers["authorization"], undefined);
  });

  it("is passed by for hosts that are excepted, and for loopback", async () => {
    serve();
    const direct = await startHostileRegistry();
    direct.inject(() => ({ kind: "answer", status: 200, headers: { "content-type": OCI_MANIFEST }, body: manifest }), Infinity);
    const options = { plainHttp: true, proxy: { http: `http://${proxy.host}`, no: "x.invalid,.registry.invalid" } };
    await openStore(direct.host, options).resolve({ tag: "v1" });
    await assert.rejects(openStore("a.registry.invalid", options).resolve({ tag: "v1" }), { code: "UNAVAILABLE" });
    assert.deepEqual([direct.seen.length, proxy.seen.length], [1, 0]);
    await direct.stop();
  });
});

describe("the observer", () => {
  let registry: DockerRegistry;

  before(async () => {
    registry = await startDockerRegistry();
  });
  after(async () => registry.stop());

  it("sees every request and counts the bytes of bodies", async () => {
    const seen: string[] = [];
    let [sent, received] = [0, 0];
    const store = openStore(registry.host, {
      observer: {
        answered: ({ method, url, status }) =>
          seen.push(`${method} ${new URL(url).pathname.replace(/uploads\/.+/, "uploads/ID")} ${status}`),
        sent: (count) => (sent += count),
        received: (count) => (received += count),
      },
    });
    await store.putBlob(layer, new MemorySource(bytes));
    for await (const chunk of store.blobStream(layer)) assert.ok(chunk.length > 0);
    const blob = `/v2/a/b/blobs/${layer.digest}`;
    assert.deepEqual(seen, [`HEAD ${blob} 404`, "POST /v2/a/b/blobs/uploads/ 202", "PUT /v2/a/b/blobs/uploads/ID 201", `GET ${blob} 200`]);
    assert.deepEqual([sent, received], [bytes.length, bytes.length]);
  });

  it("is told of requests that nobody answered, and no message shows the query of an address", async () => {
    const [front, storage] = [await startHostileRegistry(), await startHostileRegistry()];
    front.inject(() => ({ kind: "answer", status: 307, headers: { location: `http://${storage.host}/blob?signature=secret` } }), Infinity);
    storage.inject(() => ({ kind: "answer", status: 500, body: '{"errors":[{"code":"UNKNOWN"}]}' }));
    await storage.stop();
    const events: unknown[] = [];
    const observer = { answered: (event: unknown) => events.push(event), waiting: (event: unknown) => events.push(event) };
    await assert.rejects(openStore(front.host, { observer }).blob(layer), (error: Error) => {
      assert.ok(!JSON.stringify([error, error.message, events]).includes("secret"));
      return "code" in error && error.code === "UNAVAILABLE";
    });
    assert.ok(JSON.stringify(events).includes('"status":0'));
    await front.stop();
  });
});
