import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, describe, it } from "node:test";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../../../test/support/docker-registry.ts";
import { startHostileRegistry } from "../../../test/support/hostile-registry.ts";
import { layOutImage } from "../../../test/support/image-directories.ts";
import { startP2pProxy } from "../../../test/support/p2p-proxy.ts";
import { assertTree, load } from "../../../test/support/recorded-tree.ts";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";
import { startTlsRegistry, tlsFile } from "../../../test/support/tls-registry.ts";
import { recordedTarget } from "../../../test/support/turbo-image.ts";
import { MemorySource } from "../../bytes/source.ts";
import { openImageConfig, type ReadOnlyImage } from "../../device/image-config.ts";
import { parseImageConfig } from "../../device/image-config-schema.ts";
import { digestOf } from "../../oci/digest.ts";
import { FixedCredentials } from "../../registry/credentials.ts";
import { openRegistryStore } from "../../registry/registry-store.ts";
import { parseServiceConfig } from "./service-config.ts";
import { openServicePlaces, type ServicePlaces } from "./service-places.ts";
import type { ServiceMachine } from "./service-registries.ts";

const LAYERS = [0, 1, 2].map((layer) => load(`overlaybd/stack-layer${layer}.commit.zst`));
const TARGETS = [0, 1, 2].map((layer) => recordedTarget(layer)[0]);
const LOWERS = LAYERS.map((blob) => ({ digest: digestOf(blob), size: blob.length }));
const ENTRY = { auth: Buffer.from(`${REGISTRY_USER.username}:${REGISTRY_USER.password}`).toString("base64") };

let registry: DockerRegistry;

before(async () => {
  registry = await startDockerRegistry({ basicAuth: true });
  const credentials = new FixedCredentials(REGISTRY_USER.username, REGISTRY_USER.password);
  const store = openRegistryStore({ kind: "registry", host: registry.host, repository: "some/image" }, { credentials });
  for (const blob of [...LAYERS, ...TARGETS]) {
    await store.putBlob({ mediaType: "application/octet-stream", digest: digestOf(blob), size: blob.length }, new MemorySource(blob));
  }
  await store.close();
});
after(async () => await registry.stop());

/** The places of a service that has its caches in the directory. */
async function openPlaces(
  directory: TemporaryDirectory,
  raw: object = {},
  machine: Partial<ServiceMachine> = {},
): Promise<ServicePlaces & { readonly notices: string[] }> {
  const text = JSON.stringify({
    cacheConfig: { cacheType: "file", cacheDir: directory.join("cache"), cacheSizeGB: 1 },
    credentialConfig: { mode: "file", path: directory.join("cred.json") },
    ...raw,
  });
  const notices: string[] = [];
  const { signal } = new AbortController();
  const places = await openServicePlaces(parseServiceConfig(text, "overlaybd.json").config, {
    credentialFiles: [],
    variables: {},
    registryHosts: [],
    systemRoots: {},
    proxy: {},
    signal,
    notice: (message) => notices.push(message),
    ...machine,
  });
  return { ...places, notices };
}

async function openLayers(places: ServicePlaces, resultFile = ""): Promise<ReadOnlyImage> {
  const raw = { repoBlobUrl: `http://${registry.host}/v2/some/image/blobs`, lowers: LOWERS, resultFile };
  const image = await openImageConfig(parseImageConfig(JSON.stringify(raw), "config.json").config, places);
  assert.ok(image.isReadOnly);
  return image;
}

async function readsTree(places: ServicePlaces): Promise<void> {
  const { device } = await openLayers(places);
  await assertTree(device, "stack-tree", { inodes: true });
  await device.close();
}

async function writeCredentials(path: string, key = `${registry.host}/some`): Promise<void> {
  await writeFile(path, JSON.stringify({ auths: { [registry.host]: { username: "wrong", password: "wrong" }, [key]: ENTRY } }));
}

interface Service extends AsyncDisposable {
  readonly port: number;
  readonly asked: string[];
}

/** A credential service, on a socket or a free loopback port. */
async function startService(socket: string | undefined): Promise<Service> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? "");
    response.end(JSON.stringify({ traceId: "", success: true, data: { auths: { [registry.host]: ENTRY } } }));
  });
  if (socket === undefined) server.listen(0, "127.0.0.1");
  else server.listen(socket);
  await once(server, "listening");
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    asked,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

describe("an image in a registry", () => {
  it("is read with the credentials of a file, and then from the cache", async () => {
    await using directory = await TemporaryDirectory.create();
    await writeCredentials(directory.join("cred.json"));
    const places = await openPlaces(directory);
    await readsTree(places);
    const { device } = await openLayers(places);
    await assertTree(device, "stack-tree", { inodes: true });
    assert.equal(device.fetched.requests, 0);
    await device.close();
    await places.close();
    assert.deepEqual(places.notices, []);
  });

  for (const mode of ["http", "uds"] as const) {
    it(`is read with those of a service, which is asked about the blob: ${mode}`, async () => {
      await using directory = await TemporaryDirectory.create();
      await using service = await startService(mode === "uds" ? directory.join("socket") : undefined);
      const path = mode === "uds" ? directory.join("socket") : `http://127.0.0.1:${service.port}/auth`;
      const places = await openPlaces(directory, { credentialConfig: { timeout: 10, mode, path } });
      await readsTree(places);
      await places.close();
      assert.deepEqual(places.notices, []);
      assert.equal(service.asked.length, 1, "what the registry granted is remembered");
      const blobs = LOWERS.map(({ digest }) => `/auth?remote_url=http://${registry.host}/v2/some/image/blobs/${digest}`);
      assert.ok(blobs.includes(service.asked[0]), service.asked[0]);
    });
  }

  it("is read with those that docker has stored", async () => {
    await using directory = await TemporaryDirectory.create();
    const path = directory.join("config.json");
    await writeCredentials(path);
    for (const [credentialConfig, credentialFiles] of [
      [{ mode: "docker" }, [path]],
      [{ mode: "docker", path }, []],
    ] as const) {
      // prettier-ignore
      const cacheConfig = { cacheType: "file", cacheDir: directory.join(`cache-${credentialFiles.length}`), cacheSizeGB: 1 };
      const places = await openPlaces(directory, { credentialConfig, cacheConfig }, { credentialFiles });
      await readsTree(places);
      await places.close();
    }
  });

  it("that wants credentials which nobody has is refused, in the words of result files", async () => {
    await using directory = await TemporaryDirectory.create();
    const places = await openPlaces(directory);
    const resultFile = directory.join("result");
    await assert.rejects(openLayers(places, resultFile), { code: "DENIED", message: /^lowers\[0\]: .*401/ });
    const url = `/http://${registry.host}/v2/some/image/blobs/${LOWERS[0].digest}`;
    assert.equal(await readFile(resultFile, "utf8"), `failed:failed to open remote file as tar file ${url}: Authentication failed`);
    assert.match(places.notices.join("\n"), /cred\.json: does not exist; going on without credentials/);
    await places.close();
  });

  it("that is not reachable, or has no such blob, says so in the result file", async () => {
    await using directory = await TemporaryDirectory.create();
    await writeCredentials(directory.join("cred.json"));
    const places = await openPlaces(directory);
    const resultFile = directory.join("result");
    const open = async (host: string, digest: string): Promise<string> => {
      const raw = { repoBlobUrl: `http://${host}/v2/some/image/blobs/`, lowers: [{ digest }], resultFile };
      await assert.rejects(openImageConfig(parseImageConfig(JSON.stringify(raw), "config.json").config, places));
      return (await readFile(resultFile, "utf8")).replace(/^.*\/v2\/some\/image\/blobs\/sha256:\w+: /, "");
    };
    assert.equal(await open(registry.host, digestOf(Buffer.from("nothing"))), "No such file or directory");
    assert.equal(await open("127.0.0.1:1", LOWERS[0].digest), "Connection failed");
    assert.match(places.notices.join("\n"), /connection refused.*; trying again in/);
    await places.close();
  });

  it("is refused where the URL names no repository", async () => {
    await using directory = await TemporaryDirectory.create();
    const places = await openPlaces(directory);
    for (const url of [
      "registry/v2/a/blobs",
      "ftp://r.x/v2/a/blobs",
      "http://r.x/v2/blobs",
      "http://r.x/v2/a",
      "http://u:secret@r.x/v2/a/blobs",
      "http://r.x/v2/a/../b/blobs?x=1",
    ]) {
      // prettier-ignore
      await assert.rejects(places.openRemote(url), (error: Error) => {
        assert.match(error.message, /names no repository; expected https:\/\/HOST\/v2\/REPOSITORY\/blobs/);
        return !error.message.includes("secret");
      });
    }
    await places.close();
  });
});

describe("turboOCI layers of a service", () => {
  it("have their data in the registry, and that unpacked in the gzip cache", async () => {
    await using directory = await TemporaryDirectory.create();
    await writeCredentials(directory.join("cred.json"));
    const config = await layOutImage("turbo-mkfs", directory);
    const lowers = config.lowers.map((lower) => ({ ...lower, targetFile: "" }));
    const image = { ...config, repoBlobUrl: `http://${registry.host}/v2/some/image/blobs`, lowers };
    const gzipCacheConfig = { enable: true, cacheDir: directory.join("gzip"), cacheSizeGB: 1, refillSize: 65_536 };
    const places = await openPlaces(directory, { gzipCacheConfig });
    for (const isFirst of [true, false]) {
      const opened = await openImageConfig(image, places);
      assert.ok(opened.isReadOnly);
      await assertTree(opened.device, "stack-tree", { inodes: true });
      assert.equal(opened.device.fetched.bytes > 0, isFirst);
      await opened.device.close();
    }
    await places.close();
  });
});

describe("the peer-to-peer proxy of a service", () => {
  it("gives the layers, and the registry does when it is gone", async () => {
    await using directory = await TemporaryDirectory.create();
    await writeCredentials(directory.join("cred.json"));
    let address: string;
    {
      await using proxy = await startP2pProxy();
      address = proxy.address;
      const places = await openPlaces(directory, { p2pConfig: { enable: true, address } });
      await readsTree(places);
      await places.close();
      assert.ok(proxy.seen.length > LAYERS.length);
      assert.ok(proxy.seen.every(({ url }) => url.startsWith(`http://${registry.host}/v2/some/image/blobs/sha256:`)));
      assert.deepEqual(places.notices, []);
    }
    const cacheConfig = { cacheType: "file", cacheDir: directory.join("other"), cacheSizeGB: 1 };
    const places = await openPlaces(directory, { p2pConfig: { enable: true, address }, cacheConfig });
    await readsTree(places);
    await places.close();
    assert.ok(places.notices.length > 0);
    assert.ok(places.notices.every((notice) => notice.endsWith("; the registry is asked directly")));
  });
});

describe("a peer-to-peer proxy that gives wrong bytes", () => {
  it("is found out, and the registry gives the layers", async () => {
    await using directory = await TemporaryDirectory.create();
    await writeCredentials(directory.join("cred.json"));
    await using proxy = await startP2pProxy();
    proxy.answer = ({ headers }, response) => {
      const [first, last] = /^bytes=(\d+)-(\d+)$/
        .exec(headers.range ?? "")!
        .slice(1)
        .map(Number);
      const blob = LAYERS.find((layer) => proxy.seen.at(-1)?.url.endsWith(digestOf(layer)))!;
      const bytes = Buffer.from(blob.subarray(first, last + 1));
      for (let at = 0; at < bytes.length; at += 1000) bytes[at] ^= 0x40;
      response.writeHead(206, { "content-range": `bytes ${first}-${last}/${blob.length}` }).end(bytes);
    };
    const places = await openPlaces(directory, { p2pConfig: { enable: true, address: proxy.address } });
    await readsTree(places);
    await places.close();
    assert.ok(proxy.seen.length > 0);
    assert.match(places.notices.join("\n"), /gave wrong bytes of .*blob sha256:\w+; the registry is asked directly/);
  });
});

describe("the client certificate of a service", () => {
  it("is shown to registries, which certs.d directories say how to trust", async () => {
    await using directory = await TemporaryDirectory.create();
    await using secured = await startTlsRegistry({ wantsClientCertificate: true });
    const hosts = directory.join("certs.d");
    await mkdir(`${hosts}/${secured.host}`, { recursive: true });
    await writeFile(`${hosts}/${secured.host}/ca.crt`, await readFile(tlsFile("ca")));
    const certConfig = { certFile: tlsFile("client"), keyFile: tlsFile("client-key") };
    const places = await openPlaces(directory, { certConfig }, { registryHosts: [hosts] });
    const place = await places.openRemote(`https://${secured.host}/v2/a/b/blobs`);
    assert.equal(await place.blobSize(LOWERS[0].digest), undefined);
    assert.equal(secured.clients.length > 0 && secured.clients.every((name) => name !== undefined), true);
    assert.equal(secured.seen[0].headers["user-agent"], "lazylayer");
    await places.close();
  });
});

describe("a token service in another domain than its registry", () => {
  for (const [tokenServices, isAllowed] of [
    [[], false],
    [["tokens.elsewhere"], true],
  ] as const) {
    it(`${isAllowed ? "gets credentials when" : "gets none unless"} the service's configuration names it`, async () => {
      await using directory = await TemporaryDirectory.create();
      await writeCredentials(directory.join("cred.json"), "registry.invalid");
      // A proxy is asked for hosts that this machine does not know.
      await using proxy = await startHostileRegistry();
      const challenge = { "www-authenticate": 'Bearer realm="http://tokens.elsewhere/token",service="s"' };
      proxy.inject(({ url, headers }) => {
        if (url.startsWith("http://tokens.elsewhere/")) return { kind: "answer", status: 200, body: '{"token":"granted"}' };
        if (headers["authorization"] !== "Bearer granted") return { kind: "answer", status: 401, headers: challenge };
        return { kind: "answer", status: 206, headers: { "content-range": "bytes 0-0/4711" }, body: "x" };
      }, Infinity);
      const places = await openPlaces(directory, { lazylayer: { tokenServices } }, { proxy: { http: `http://${proxy.host}` } });
      const place = await places.openRemote("http://registry.invalid/v2/some/image/blobs");
      const asked = place.blobSize(LOWERS[0].digest);
      if (isAllowed) assert.equal(await asked, 4711);
      else await assert.rejects(asked, { code: "DENIED", message: /no credentials were sent; .*lazylayer\.tokenServices/ });
      const tokens = proxy.seen.filter(({ url }) => url.startsWith("http://tokens.elsewhere/"));
      assert.deepEqual(
        tokens.map(({ headers }) => headers["authorization"]),
        isAllowed ? [`Basic ${ENTRY.auth}`] : [],
      );
      await places.close();
    });
  }
});
