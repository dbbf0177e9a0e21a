import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, afterEach, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { MemorySource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { selectImage } from "../../src/oci/image-selection.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";
import { startTlsRegistry } from "../support/tls-registry.ts";

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

  it("a layer's digest that is a path is asked for nowhere", async () => {
    for (const digest of ["sha256:../../v2/other/blobs/x", `sha256:${"0".repeat(64)}?x=`, `sha256:${"A".repeat(64)}`, "md5:0"]) {
      const config = { mediaType: OCI_CONFIG, digest: digestOf(Buffer.from("c")), size: 1 };
      const layers = [{ mediaType: OCI_LAYER_TAR, digest, size: 10 }];
      const body = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
      front.inject(() => ({ kind: "answer", status: 200, headers: { "content-type": OCI_MANIFEST }, body }));
      await assert.rejects(selectImage(store, { tag: "paths" }, platform), { code: "CORRUPT", message: /layer 0: digest/ });
    }
    assert.equal(front.seen.length, 4);
  });

  it("a redirect to another scheme, name or port carries no authorization, no cookie and no header of one's own", async () => {
    await using secure = await startTlsRegistry({ listener: (_request, response) => void response.writeHead(200).end() });
    const own = openRegistryStore(
      { kind: "registry", host: front.host, repository: "trust" },
      { credentials: new FixedCredentials("me", "hunter2"), headers: { "x-team": "blue", cookie: "a=b" }, tls: { insecure: true } },
    );
    stranger.inject(() => ({ kind: "answer", status: 200 }), Infinity);
    const port = front.host.split(":")[1];
    const digest = digestOf(Buffer.from("x"));
    for (const target of [`http://${stranger.host}/x`, `http://localhost:${port}/named`, `https://${secure.host}/x`]) {
      front.reset();
      front.inject(({ url, headers }) => {
        if (url === "/named") return { kind: "answer", status: 200 };
        if (headers["authorization"] === undefined)
          return { kind: "answer", status: 401, headers: { "www-authenticate": 'Basic realm="x"', "set-cookie": "session=1" } };
        return { kind: "answer", status: 307, headers: { location: target, "set-cookie": "session=2" } };
      }, Infinity);
      assert.equal(await own.hasBlob(digest), true);
      const asked = front.seen.filter(({ url }) => url !== "/named").at(-1)!;
      assert.deepEqual([asked.headers["x-team"], asked.headers["cookie"]], ["blue", "a=b"]);
      assert.ok(asked.headers["authorization"]?.startsWith("Basic "));
    }
    const targets = [stranger.seen.at(-1), front.seen.at(-1), secure.seen.at(-1)];
    assert.deepEqual([stranger.seen.length, secure.seen.length], [1, 1]);
    for (const seen of [...stranger.seen, ...front.seen.filter(({ url }) => url === "/named"), ...secure.seen]) {
      assert.deepEqual(
        ["authorization", "cookie", "x-team", "proxy-authorization"].filter((name) => seen.headers[name] !== undefined),
        [],
      );
    }
    assert.ok(targets.every(Boolean));
    await own.close();
  });

  it("a redirect behind a proxy takes nothing of the registry's along, and the proxy's password goes to the proxy alone", async () => {
    const proxied = openRegistryStore(
      { kind: "registry", host: "registry.invalid", repository: "trust" },
      {
        plainHttp: true,
        credentials: new FixedCredentials("me", "hunter2"),
        headers: { "x-team": "blue" },
        proxy: { http: `http://p:proxied@${stranger.host}`, no: "10.0.0.1" },
      },
    );
    stranger.inject(({ url, headers }) => {
      if (url === "http://storage.invalid/x") return { kind: "answer", status: 200 };
      if (headers["authorization"] !== undefined) return { kind: "answer", status: 307, headers: { location: "http://storage.invalid/x" } };
      return { kind: "answer", status: 401, headers: { "www-authenticate": 'Basic realm="x"' } };
    }, Infinity);
    assert.equal(await proxied.hasBlob(digestOf(Buffer.from("x"))), true);
    const password = `Basic ${Buffer.from("p:proxied").toString("base64")}`;
    assert.deepEqual(
      stranger.seen.map(({ headers }) => headers["proxy-authorization"]),
      [password, password, password],
    );
    const [, asked, storage] = stranger.seen;
    assert.deepEqual([asked.headers["x-team"], asked.headers["authorization"] !== undefined], ["blue", true]);
    assert.deepEqual([storage.headers["x-team"], storage.headers["authorization"]], [undefined, undefined]);
    await proxied.close();
  });

  for (const address of ["http://p:hunter2@", "ftp://p:hunter2@proxy.example", "http://p:hunter2@:::"]) {
    it(`a proxy's address that is none is refused without its password: ${address.replace("hunter2", "…")}`, async () => {
      const proxy = { http: address, https: address };
      const proxied = openRegistryStore({ kind: "registry", host: "registry.invalid", repository: "trust" }, { plainHttp: true, proxy });
      await assert.rejects(proxied.resolve({ tag: "v1" }), (error: Error) => {
        assert.ok(!`${error.message} ${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`.includes("hunter2"));
        return "code" in error && error.code === "USAGE";
      });
      await proxied.close();
    });
  }

  it("a proxy's address may lack its scheme", async () => {
    stranger.inject(() => ({ kind: "answer", status: 200 }), Infinity);
    const proxied = openRegistryStore(
      { kind: "registry", host: "registry.invalid", repository: "trust" },
      { plainHttp: true, proxy: { http: stranger.host } },
    );
    assert.equal(await proxied.hasBlob(digestOf(Buffer.from("x"))), true);
    assert.equal(stranger.seen.length, 1);
    await proxied.close();
  });

  it("answers without an end are left, whatever they answer", async () => {
    let sent = 0;
    await using cleanup = new AsyncDisposableStack();
    const server = createServer((request, response) => {
      const isToken = request.url?.startsWith("/token") === true;
      const realm = `Bearer realm="http://${request.headers.host}/token"`;
      const wantsToken = !isToken && request.url?.includes("needs-token") === true;
      if (wantsToken) return void response.writeHead(401, { "www-authenticate": realm }).end();
      const isError = request.url?.includes("fails") === true;
      response.writeHead(isError ? 403 : 200, { "content-type": isToken ? "application/json" : OCI_MANIFEST });
      const chunk = Buffer.alloc(1 << 16, " ");
      const pour = (): void => {
        while (!response.destroyed && response.write(chunk)) sent += chunk.length;
      };
      response.on("drain", pour).on("error", () => undefined);
      pour();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanup.defer(() => {
      server.close();
      server.closeAllConnections();
    });
    const address = server.address();
    assert.ok(address !== null && typeof address === "object");
    const host = `127.0.0.1:${address.port}`;
    const open = (repository: string): ImageStore =>
      openRegistryStore(
        { kind: "registry", host, repository },
        { credentials: new FixedCredentials("me", "hunter2"), retry: { tries: 1 } },
      );
    const descriptor = { mediaType: OCI_CONFIG, digest: digestOf(Buffer.from("x")), size: 1000 };
    for (const [repository, code, ask] of [
      ["manifest", "CORRUPT", async (endless: ImageStore) => await endless.resolve({ tag: "v1" })],
      ["config", "CORRUPT", async (endless: ImageStore) => await endless.blob(descriptor)],
      ["layer", "CORRUPT", async (endless: ImageStore) => await readAll(endless.blobStream(descriptor))],
      ["referrers", "CORRUPT", async (endless: ImageStore) => await endless.referrers(descriptor.digest)],
      ["needs-token", "CORRUPT", async (endless: ImageStore) => await endless.resolve({ tag: "v1" })],
      ["fails", "DENIED", async (endless: ImageStore) => await endless.resolve({ tag: "v1" })],
    ] as const) {
      sent = 0;
      const endless = open(repository);
      cleanup.defer(async () => await endless.close());
      await assert.rejects(ask(endless), { code }, repository);
      // What the connection holds comes on top of what was read.
      assert.ok(sent < 40 << 20, `${repository}: ${sent} bytes`);
    }
  });

  it("documents and configs that are too large to be any are not even asked for", async () => {
    const digest = digestOf(Buffer.from("x"));
    await assert.rejects(store.manifest({ mediaType: OCI_MANIFEST, digest, size: (4 << 20) + 1 }), { code: "CORRUPT" });
    await assert.rejects(store.blob({ mediaType: OCI_CONFIG, digest, size: (8 << 20) + 1 }), { code: "CORRUPT" });
    assert.deepEqual(front.seen, []);
  });

  it("a content coding is not undone: what is hashed is what was sent", async () => {
    const bomb = gzipSync(Buffer.alloc(64 << 20));
    const descriptor = { mediaType: OCI_CONFIG, digest: digestOf(bomb), size: bomb.length };
    front.inject(() => ({ kind: "answer", status: 200, headers: { "content-encoding": "gzip" }, body: bomb }));
    assert.deepEqual(Buffer.from(await store.blob(descriptor)), bomb);
    assert.equal(front.seen[0].headers["accept-encoding"], "identity");
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

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of stream) assert.ok(chunk.length > 0);
}
