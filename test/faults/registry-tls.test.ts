import assert from "node:assert/strict";
import { once } from "node:events";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { after, before, describe, it } from "node:test";
import type { Digest } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_INDEX } from "../../src/oci/media-types.ts";
import { readCertificateDirectory, readClientCertificate, readRootFile, readSystemRoots } from "../../src/registry/certificate-files.ts";
import type { RegistryOptions } from "../../src/registry/client.ts";
import { openConfiguredStore } from "../../src/registry/configured-store.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { HostDirectories } from "../../src/registry/host-directories.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { TlsOptions } from "../../src/registry/tls.ts";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { startTlsRegistry, tlsFile, type TlsRegistry } from "../support/tls-registry.ts";

const index = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
const digest = `sha256:${"0".repeat(64)}` as Digest;
const retry = { tries: 2, firstDelayMs: 1 };
let directory: TemporaryDirectory;
let open: TlsRegistry;
let mutual: TlsRegistry;
const stores: ImageStore[] = [];

before(async () => {
  directory = await TemporaryDirectory.create();
  [open, mutual] = [await startTlsRegistry(), await startTlsRegistry({ wantsClientCertificate: true })];
});
after(async () => {
  for (const store of stores) await store.close();
  for (const thing of [open, mutual, directory]) await thing[Symbol.asyncDispose]();
});

function openStore(host: string, tls: TlsOptions, options: RegistryOptions = {}): ImageStore {
  const store = openRegistryStore({ kind: "registry", host, repository: "tls" }, { plainHttp: false, retry, tls, ...options });
  stores.push(store);
  return store;
}

async function roundTrip(store: ImageStore): Promise<void> {
  const stored = await store.putManifest(index, OCI_INDEX, { tag: "v1" });
  assert.deepEqual((await store.resolve({ tag: "v1" })).descriptor, stored);
}

/** A proxy over TLS that leads whoever asks to one place. */
async function startTlsProxy(place: string): Promise<{ readonly host: string; readonly asked: string[] } & AsyncDisposable> {
  const asked: string[] = [];
  const [key, cert] = await Promise.all(["server-key", "server"].map(async (name) => await readFile(tlsFile(name))));
  const server = createServer({ key, cert });
  server.on("connect", (request, client: Duplex) => {
    asked.push(request.url ?? "");
    const upstream = connect(Number(place.split(":")[1]), "127.0.0.1", () => client.write("HTTP/1.1 200 OK\r\n\r\n"));
    upstream.on("error", () => client.destroy()).on("close", () => client.destroy());
    client.on("error", () => upstream.destroy()).on("close", () => upstream.destroy());
    upstream.pipe(client).pipe(upstream);
  });
  server.on("tlsClientError", () => undefined);
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    server.close();
    server.closeAllConnections();
  };
  return { host: `127.0.0.1:${port}`, asked, [Symbol.asyncDispose]: close };
}

describe("a proxy that is reached over TLS", () => {
  it("is verified, whatever is said of registries, by the authorities that are trusted for all", async () => {
    await using proxy = await startTlsProxy(open.host);
    const options = { proxy: { https: `https://${proxy.host}` } };
    const careless = openStore("registry.invalid", { insecure: true }, options);
    await assert.rejects(careless.resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /certificate not accepted/ });
    assert.deepEqual(proxy.asked, []);
    await roundTrip(openStore("registry.invalid", { insecure: true, extraRoots: [await readRootFile(tlsFile("ca"))] }, options));
    assert.ok(proxy.asked.every((host) => host === "registry.invalid:443") && proxy.asked.length > 0);
  });
});

it("a server that never ends its greeting is waited for as long as for a connection, and not as for an answer", async () => {
  const held: Socket[] = [];
  const server = createTcpServer((socket) => held.push(socket));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  const timeouts = { connectMs: 200, answerMs: 60_000, commitMs: 60_000, stallMs: 60_000 };
  const store = openStore(`127.0.0.1:${port}`, {}, { timeouts, retry: { tries: 1 } });
  await assert.rejects(store.resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /no connection within 0\.2 s/ });
  for (const socket of held) socket.destroy();
  server.close();
});

describe("certificates", () => {
  it("of an authority that was named are trusted, others are not", async () => {
    await roundTrip(openStore(open.host, { extraRoots: [await readRootFile(tlsFile("ca"))] }));
    const other = { extraRoots: [await readRootFile(tlsFile("certificate"))] };
    for (const tls of [{}, other]) {
      await assert.rejects(openStore(open.host, tls).resolve({ tag: "v1" }), { code: "UNAVAILABLE", message: /certificate not accepted/ });
    }
  });

  it("of the machine are those that SSL_CERT_FILE and SSL_CERT_DIR name, if they name any", async () => {
    await mkdir(directory.join("roots"));
    await copyFile(tlsFile("ca"), directory.join("roots", "a.pem"));
    for (const places of [{ file: tlsFile("ca") }, { directories: directory.join("roots") }]) {
      await roundTrip(openStore(open.host, { systemRoots: async () => (await readSystemRoots(places)) ?? [] }));
    }
    const replaced = openStore(open.host, { systemRoots: async () => (await readSystemRoots({ file: tlsFile("certificate") })) ?? [] });
    await assert.rejects(replaced.resolve({ tag: "v1" }), { message: /certificate not accepted/ });
    await assert.rejects(readSystemRoots({ file: "/nope.crt" }), { code: "NOT_FOUND", message: /^\/nope\.crt: / });
  });

  it("of clients are shown to a registry that wants one, and it is said when none was given", async () => {
    const extraRoots = [await readRootFile(tlsFile("ca"))];
    const pair = await readClientCertificate(tlsFile("client"), tlsFile("client-key"));
    await roundTrip(openStore(mutual.host, { extraRoots, clientCertificates: [pair] }));
    assert.deepEqual([...new Set(mutual.clients)], ["client"]);
    await assert.rejects(openStore(mutual.host, { extraRoots }).resolve({ tag: "v1" }), {
      message: /want.* client certificate.*--client-cert/,
    });
  });

  it("of clients are taken by a real registry, and what it says without one is understood", async () => {
    const [certificate, key, clientAuthority] = ["server", "server-key", "ca"].map(tlsFile);
    await using registry = await startDockerRegistry({ tls: { certificate, key, clientAuthority } });
    const extraRoots = [await readRootFile(tlsFile("ca"))];
    const pair = await readClientCertificate(tlsFile("client"), tlsFile("client-key"));
    await roundTrip(openStore(registry.host, { extraRoots, clientCertificates: [pair] }));
    // Whether its alert or the end of the connection is seen first, is chance.
    await assert.rejects(openStore(registry.host, { extraRoots }).resolve({ tag: "v1" }), {
      message: /want.* client certificate.*--client-cert/,
    });
  });

  it("of clients are shown to nobody that the registry leads to", async () => {
    await using storage = await startTlsRegistry();
    const { port } = new URL(`https://${storage.host}`);
    await using leading = await startTlsRegistry({
      listener: (_request, response) => response.writeHead(307, { location: `https://localhost:${port}/blob` }).end(),
    });
    const clientCertificates = [await readClientCertificate(tlsFile("client"), tlsFile("client-key"))];
    const store = openStore(
      leading.host,
      { extraRoots: [await readRootFile(tlsFile("ca"))], clientCertificates },
      { headers: { "x-key": "secret" } },
    );
    assert.equal(await store.hasBlob(digest), false);
    assert.deepEqual([leading.clients, storage.clients], [["client"], [undefined]]);
    assert.deepEqual([leading.seen[0].headers["x-key"], storage.seen[0].headers["x-key"]], ["secret", undefined]);
  });

  it("are verified of storages and of token services too, also of those of an insecure mirror's neighbours", async () => {
    await using stranger = await startTlsRegistry();
    const { port } = new URL(`https://${stranger.host}`);
    const hostTls = async (host: string): Promise<{ roots: []; clientCertificates: []; insecure: boolean }> => ({
      roots: [],
      clientCertificates: [],
      insecure: host !== `localhost:${port}`,
    });
    for (const [status, headers] of [
      [307, { location: `https://localhost:${port}/blob` }],
      [401, { "www-authenticate": `Bearer realm="https://localhost:${port}/token"` }],
    ] as const) {
      await using leading = await startTlsRegistry({ listener: (_request, response) => response.writeHead(status, headers).end() });
      const store = openStore(leading.host, { hostTls }, { credentials: new FixedCredentials("u", "p") });
      await assert.rejects(store.hasBlob(digest), { code: "UNAVAILABLE", message: /localhost.*certificate not accepted/ });
      assert.deepEqual(stranger.seen, []);
    }
  });
});

describe("certificate files", () => {
  for (const [what, read, code, message] of [
    ["a missing directory", async () => readCertificateDirectory("/nope"), "NOT_FOUND", /^\/nope: does not exist/],
    ["a file for a directory", async () => readCertificateDirectory(tlsFile("ca")), "NOT_FOUND", /not a directory/],
    ["a missing file", async () => readRootFile("/nope.crt"), "NOT_FOUND", /^\/nope\.crt: does not exist/],
    ["a key for a certificate", async () => readRootFile(tlsFile("client-key")), "USAGE", /no usable certificate/],
    ["a certificate for a key", async () => readClientCertificate(tlsFile("client"), tlsFile("client")), "USAGE", /no usable private key/],
    ["the key of another", async () => readClientCertificate(tlsFile("client"), tlsFile("server-key")), "USAGE", /is not the key of/],
  ] as const) {
    it(`are refused with ${code}: ${what}`, async () => await assert.rejects(read(), { code, message }));
  }

  it("without a key beside them are refused", async () => {
    await mkdir(directory.join("half"));
    await copyFile(tlsFile("client"), directory.join("half", "client.cert"));
    await assert.rejects(readCertificateDirectory(directory.join("half")), { code: "NOT_FOUND", message: /no client\.key beside it/ });
  });

  it("that leave open which one to show are refused", async () => {
    const pairs = [
      await readClientCertificate(tlsFile("client"), tlsFile("client-key")),
      await readClientCertificate(tlsFile("certificate"), tlsFile("key")),
    ];
    await assert.rejects(openStore(open.host, { clientCertificates: pairs }).resolve({ tag: "v1" }), {
      code: "USAGE",
      message: /two client/,
    });
    const twice = openStore(mutual.host, { extraRoots: [await readRootFile(tlsFile("ca"))], clientCertificates: [pairs[0], pairs[0]] });
    await roundTrip(twice);
  });
});

describe("certs.d directories", () => {
  const openWith = async (host: string, root: string): Promise<ImageStore> => {
    const hosts = new HostDirectories([directory.join("missing"), root]);
    const store = await openConfiguredStore({ kind: "registry", host, repository: "tls" }, { hosts, retry, notice: assert.fail });
    stores.push(store);
    return store;
  };
  const fill = async (name: string): Promise<void> => {
    await mkdir(name, { recursive: true });
    for (const [from, to] of [
      ["ca", "ca.crt"],
      ["client", "client.cert"],
      ["client-key", "client.key"],
    ] as const) {
      await copyFile(tlsFile(from), `${name}/${to}`);
    }
  };

  it("as docker has them give certificates to the registry they are called after", async () => {
    const root = directory.join("docker");
    await fill(`${root}/${mutual.host}`);
    await roundTrip(await openWith(mutual.host, root));
    await assert.rejects((await openWith(open.host, root)).resolve({ tag: "v1" }), { code: "UNAVAILABLE" });
  });

  it("as containerd has them give certificates by hosts.toml", async () => {
    const root = directory.join("containerd");
    const name = `${root}/${mutual.host.replace(/:(\d+)$/, "_$1_")}`;
    await fill(name);
    await writeFile(`${name}/both.pem`, `${await readFile(tlsFile("client"), "utf8")}${await readFile(tlsFile("client-key"), "utf8")}`);
    for (const client of ['["client.cert", "client.key"]', '[["client.cert", "client.key"]]', '"both.pem"', `["${name}/both.pem"]`]) {
      const isPair = client === '["client.cert", "client.key"]';
      await writeFile(`${name}/hosts.toml`, `server = "https://${mutual.host}"\nca = ["ca.crt"]\nclient = ${client}\n`);
      if (isPair) await assert.rejects(openWith(mutual.host, root), { code: "USAGE", message: /no usable private key/ });
      else await roundTrip(await openWith(mutual.host, root));
    }
    await writeFile(`${name}/hosts.toml`, `server = "https://${mutual.host}"\nskip_verify = true\nclient = "both.pem"\n`);
    await roundTrip(await openWith(mutual.host, root));
  });
});
