import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:https";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { RegistryOptions } from "../../src/registry/client.ts";
import { openConfiguredStore } from "../../src/registry/configured-store.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { HostDirectories } from "../../src/registry/host-directories.ts";
import { RegistryError } from "../../src/registry/registry-error.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { timeoutsOf } from "../../src/registry/timeouts.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type Fault, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { startTlsRegistry, tlsFile } from "../support/tls-registry.ts";

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

describe("a registry with TLS that is asked over plain HTTP", () => {
  const explained = (host: string, options: RegistryOptions, hint: RegExp): Promise<void> =>
    assert.rejects(openStore(host, options).resolve({ tag: "v1" }), (error: Error) => {
      assert.ok(error instanceof RegistryError);
      assert.equal(error.code, "UNAVAILABLE");
      assert.match(error.message, /the registry speaks TLS/);
      assert.match(error.message, hint);
      return true;
    });

  it("is recognised whatever it does with such requests, at the first try, and the option is named", async () => {
    await using node = await startTlsRegistry(); // closes the connection
    await using directory = await TemporaryDirectory.create();
    const tls = { certificate: tlsFile("server"), key: tlsFile("server-key"), clientAuthority: tlsFile("ca") };
    await using docker = await startDockerRegistry({ tls }); // answers 400 in plain HTTP
    const pauses: unknown[] = [];
    const options = { observer: { waiting: (pause: unknown) => pauses.push(pause) } };
    for (const { host } of [node, docker]) {
      await explained(host, options, /--root-ca FILE .*or --insecure/);
      await explained(host, { ...options, plainHttp: true }, /leave out --plain-http \(--plain\).*--root-ca FILE/);
      const reference = { kind: "registry", host, repository: "a/b" } as const;
      const store = await openConfiguredStore(reference, { hosts: new HostDirectories([directory.path]), notice: () => undefined });
      stores.push(store);
      await assert.rejects(store.resolve({ tag: "v1" }), { message: /--root-ca FILE .*or --insecure/ });
    }
    assert.deepEqual(pauses, []);
  });

  it("is not what every failure over plain HTTP is taken for", async () => {
    await using upstream = await startReferrersRegistry();
    await using plain = await startHostileRegistry(upstream.host);
    plain.inject(() => ({ kind: "reset" }), Infinity);
    await assert.rejects(openStore(plain.host).resolve({ tag: "v1" }), { message: /connection failed/ });
    plain.inject(() => ({ kind: "answer", status: 400 }), Infinity);
    await assert.rejects(openStore(plain.host).resolve({ tag: "v1" }), { code: "UNSUPPORTED", status: 400 });
  });
});

describe("patience", () => {
  let upstream: ReferrersRegistry;
  let registry: HostileRegistry;
  const content = Buffer.alloc(24 << 20);
  const large = { mediaType: OCI_LAYER_TAR, digest: digestOf(content), size: content.length };

  before(async () => {
    upstream = await startReferrersRegistry();
    registry = await startHostileRegistry(upstream.host);
  });
  afterEach(() => registry.reset());
  after(async () => {
    await registry.stop();
    await upstream.stop();
  });

  for (const [retries, times] of [
    [0, ""],
    [1, "; gave up after 2 tries"],
    [3, "; gave up after 4 tries"],
  ] as const) {
    it(`with ${retries} retries ends with the last failure, what it was about and how often it was tried`, async () => {
      registry.inject(() => ({ kind: "answer", status: 503 }), Infinity);
      registry.inject(() => ({ kind: "answer", status: 500 }), retries);
      const store = openStore(registry.host, { retry: { tries: retries + 1, firstDelayMs: 1 } });
      await assert.rejects(store.resolve({ tag: "v1" }), {
        code: "UNAVAILABLE",
        status: 503,
        message: `${registry.host}/a/b:v1: 503${times}`,
      });
      assert.equal(registry.seen.length, retries + 1);
    });
  }

  it("that ends in an upload or a download names the blob, also when the address does not", async () => {
    registry.inject(({ method }) => (method === "PUT" ? { kind: "reset" } : undefined), Infinity);
    registry.inject(
      ({ method }) => (method === "POST" ? { kind: "answer", status: 202, headers: { location: "/v2/upload/7" } } : undefined),
      Infinity,
    );
    const store = openStore(registry.host);
    await assert.rejects(store.putBlob(layer, new MemorySource(bytes)), (error: Error) => {
      assert.ok(error.message.startsWith(`${registry.host}/a/b: blob ${layer.digest}: http`), error.message);
      return /\/v2\/upload\/7: connection failed: .*; gave up after 3 tries$/.test(error.message);
    });
    registry.reset();
    registry.inject(({ method }) => (method === "GET" ? { kind: "reset" } : undefined), Infinity);
    const message = /blobs\/sha256:[0-9a-f]{64}: connection failed: .*; gave up after 3 tries$/;
    await assert.rejects(store.blobStream(layer)[Symbol.asyncIterator]().next(), { message });
    await assert.rejects((await store.blobSource(layer)).read(0, 5), { message });
  });

  it("does not reach for a registry that asks to be left alone for longer", async () => {
    registry.inject(() => ({ kind: "answer", status: 429, headers: { "retry-after": "3600" } }), Infinity);
    const message = /429.*limits the rate.*; wants to be asked again in 3600 s, which is longer than is waited for$/;
    await assert.rejects(openStore(registry.host).resolve({ tag: "v1" }), { status: 429, message });
    assert.equal(registry.seen.length, 1);
  });

  it("has one time limit for answers and for progress, up and down", async () => {
    const impatient = openStore(registry.host, { retry: { tries: 1 }, timeouts: timeoutsOf(200) });
    registry.inject(() => ({ kind: "hang" }), Infinity);
    await assert.rejects(impatient.resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /stalled: no bytes within the time limit/ });
    registry.reset();
    registry.inject(({ method }) => (method === "PUT" ? { kind: "hang" } : undefined), Infinity);
    registry.inject(({ method }) =>
      method === "POST" ? { kind: "answer", status: 202, headers: { location: "/v2/upload/7" } } : undefined,
    );
    await assert.rejects(impatient.putBlob(large, new MemorySource(content)), {
      code: "UNAVAILABLE",
      message: /stalled: no bytes were taken/,
    });
  });
});

describe("a read with a time budget", () => {
  let upstream: ReferrersRegistry;
  let registry: HostileRegistry;
  const READ_BUDGET_MS = 300;
  const budgeted = (options: RegistryOptions = {}): ImageStore => openStore(registry.host, { readBudgetMs: READ_BUDGET_MS, ...options });
  const assertRead = async (source: ByteSource): Promise<void> => {
    assert.deepEqual(Buffer.from(await source.read(5, 10)), bytes.subarray(5, 15));
  };

  before(async () => {
    upstream = await startReferrersRegistry();
    registry = await startHostileRegistry(upstream.host);
    await openStore(upstream.host).putBlob(layer, new MemorySource(bytes));
  });
  afterEach(() => registry.reset());
  after(async () => {
    await registry.stop();
    await upstream.stop();
  });

  it("ends when it is spent, whatever is waited for", async () => {
    const redirect: Fault = { kind: "answer", status: 307, headers: { location: `http://${registry.host}/storage` } };
    const challenge = { "www-authenticate": `Bearer realm="http://${registry.host}/token",service="s"` };
    const rules: readonly ((request: SeenRequest) => Fault | undefined)[] = [
      () => ({ kind: "hang" }),
      () => ({ kind: "stall", afterBytes: 3 }),
      ({ url }) => (url === "/storage" ? { kind: "hang" } : redirect),
      ({ url }) => (url.startsWith("/token") ? { kind: "hang" } : { kind: "answer", status: 401, headers: challenge }),
    ];
    for (const rule of rules) {
      registry.reset();
      registry.inject(rule, Infinity);
      const startMs = performance.now();
      const store = budgeted({ credentials: new FixedCredentials("u", "p") });
      const spent = { code: "UNAVAILABLE", message: /^127.*: blob sha256:\w+: gave up after 0.3 s$/ };
      await assert.rejects((await store.blobSource(layer)).read(5, 10), spent);
      const tookMs = performance.now() - startMs;
      assert.ok(tookMs >= READ_BUDGET_MS - 5 && tookMs < 10 * READ_BUDGET_MS, `${tookMs} ms`);
      // Its size stands in the head of an answer that stalls.
      if (rule(registry.seen[0])?.kind !== "stall") await assert.rejects(store.blobSize(layer.digest), spent);
    }
  });

  it("tells of the last failure when it is spent between two tries", async () => {
    registry.inject(() => ({ kind: "answer", status: 503, headers: { "retry-after": "60" } }), Infinity);
    const source = await budgeted().blobSource(layer);
    const spent = { code: "UNAVAILABLE", message: /gave up after 0.3 s; the last failure: .*503/ };
    await assert.rejects(source.read(5, 10), spent);
    await assert.rejects(budgeted().blobSize(layer.digest), spent);
    registry.reset();
    await assertRead(source);
  });

  it("ends at once when its source is closed", async () => {
    registry.inject(() => ({ kind: "hang" }), Infinity);
    const source = await budgeted({ readBudgetMs: 60_000 }).blobSource(layer);
    const reading = assert.rejects(source.read(5, 10), { message: /was closed/ });
    await source.close();
    await reading;
    await assert.rejects(source.read(5, 10), { message: /was closed/ });
  });

  it("does not bound what is read in the background, nor streams", async () => {
    const slow = { retry: { tries: 2, firstDelayMs: 2 * READ_BUDGET_MS } };
    const fail = (): void => registry.inject(() => ({ kind: "answer", status: 503 }));
    const store = budgeted(slow);
    fail();
    await assertRead(await store.blobSource(layer, { inBackground: true }));
    fail();
    let length = 0;
    for await (const chunk of store.blobStream(layer)) length += chunk.length;
    assert.equal(length, layer.size);
  });

  it("is shared, so that a mirror that hangs leaves some to the registry", async () => {
    await using directory = await TemporaryDirectory.create();
    await using mirror = await startHostileRegistry(upstream.host);
    const hosts = `server = "http://${registry.host}"\n[host."http://${mirror.host}"]\ncapabilities = ["pull"]\n`;
    await mkdir(directory.join("registry.test"));
    await writeFile(directory.join("registry.test", "hosts.toml"), hosts);
    const notices: string[] = [];
    const notice = (message: string): void => void notices.push(message);
    const options = { hosts: new HostDirectories([directory.path]), notice, readBudgetMs: READ_BUDGET_MS };
    const store = await openConfiguredStore({ kind: "registry", host: "registry.test", repository: "a/b" }, options);
    stores.push(store);
    mirror.inject(() => ({ kind: "hang" }), Infinity);
    const source = await store.blobSource(layer);
    await assertRead(source);
    assert.match(notices.join(), /^mirror .*gave up after 0.15 s; asking registry.test\/a\/b instead$/);
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
    for (const excepted of ["x.invalid", "below.x.invalid", "a.registry.invalid"]) {
      await assert.rejects(openStore(excepted, options).resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /host name is not known/ });
    }
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
