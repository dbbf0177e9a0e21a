import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry } from "../support/hostile-registry.ts";
import { startP2pProxy } from "../support/p2p-proxy.ts";
import { pushStack } from "../support/stack-registry.ts";
import { startTlsRegistry, tlsFile } from "../support/tls-registry.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const BASIC = Buffer.from(`${REGISTRY_USER.username}:${REGISTRY_USER.password}`).toString("base64");
/** Nothing is kept of layers without a directory: each device asks the registry. */
const UNCACHED = { cacheConfig: { cacheType: "download" } };

let registry: DockerRegistry;
let image: Awaited<ReturnType<typeof pushStack>>;
let front: string;

before(async () => {
  registry = await startDockerRegistry({ basicAuth: true });
  image = await pushStack(registry.host, { authorization: `Basic ${BASIC}` });
  await using bench = await DaemonBench.start();
  front = await bench.frontOf(await bench.create({ id: "local", config: await bench.stackConfig() }));
  await bench.remove("local");
});
after(async () => await registry.stop());

async function assertServes(bench: DaemonBench, config: object = image): Promise<void> {
  assert.equal(await bench.frontOf(await bench.create({ id: "app", config })), front, bench.saidBy("app"));
  await bench.remove("app");
}

test("a device asks docker's credential helpers, which are in the daemon's PATH", async () => {
  await using helpers = await TemporaryDirectory.create();
  const secret = JSON.stringify({ Username: REGISTRY_USER.username, Secret: REGISTRY_USER.password });
  const script = `#!/bin/sh\ncat >>${helpers.join("asked")}\necho '${secret}'\n`;
  await writeFile(helpers.join("docker-credential-keys"), script, { mode: 0o755 });
  const config = helpers.join("config.json");
  await writeFile(config, JSON.stringify({ credHelpers: { [registry.host]: "keys" } }));
  const environment = { PATH: `${helpers.path}:${process.env["PATH"]}` };
  await using bench = await DaemonBench.start({ credentialConfig: { mode: "docker", path: config } }, { environment });
  await assertServes(bench);
  assert.equal(await readFile(helpers.join("asked"), "utf8"), `${registry.host}\n`, "once");
  assert.ok(!bench.said.includes(REGISTRY_USER.password));
});

test("a device asks a credential service over https, and both show their certificates", async () => {
  await using service = await startTlsRegistry({
    wantsClientCertificate: true,
    listener: (_, response) => void response.end(JSON.stringify({ success: true, data: { auths: { [registry.host]: { auth: BASIC } } } })),
  });
  const certificates = { client_cert_path: tlsFile("client"), client_key_path: tlsFile("client-key") };
  const credentialConfig = { mode: "https", path: `https://${service.host}/auth`, timeout: 10, ...certificates };
  {
    await using bench = await DaemonBench.start({ credentialConfig: { ...credentialConfig, server_ca_path: tlsFile("ca") } });
    await assertServes(bench);
  }
  const [{ url }] = service.seen;
  const blobs = image.lowers.map(({ digest }) => `/auth?remote_url=${image.repoBlobUrl}/${digest}`);
  assert.ok(blobs.includes(url), url);
  assert.ok(service.clients.length > 0 && service.clients.every((name) => name !== undefined));
  const asked = service.seen.length;

  await using bench = await DaemonBench.start({ credentialConfig });
  await assert.rejects(bench.create({ id: "app", config: image }), /401/);
  assert.match(bench.said, /https:\/\/127\.0\.0\.1:\d+\/auth: .*certificate/, "the machine's authorities do not know the service's");
  assert.equal(service.seen.length, asked);
});

test("a device asks the peer-to-peer proxy for what a mirror has, and goes around the one and the other when they fail", async () => {
  await using upstream = await startDockerRegistry();
  const { lowers } = await pushStack(upstream.host);
  await using mirror = await startHostileRegistry(upstream.host);
  await using server = await startHostileRegistry(upstream.host);
  await using proxy = await startP2pProxy();
  await using hosts = await TemporaryDirectory.create();
  await mkdir(hosts.join("certs.d", "registry.test"), { recursive: true });
  const text = `server = "http://${server.host}"\n[host."http://${mirror.host}"]\ncapabilities = ["pull"]\n`;
  await writeFile(hosts.join("certs.d", "registry.test", "hosts.toml"), text);
  // The daemon goes by what is in /etc: it gets an own one. What it mounts is not to be seen from outside then, so devices are shown by NBD.
  const wrapper = ["unshare", "--mount", "sh", "-euc", 'mount --bind "$0" /etc/containers; exec "$@"', hosts.path];
  await using bench = await DaemonBench.start({ ...UNCACHED, p2pConfig: { enable: true, address: proxy.address } }, { wrapper });
  const config = { repoBlobUrl: "http://registry.test/v2/app/blobs", lowers };
  const frontOverNbd = async (): Promise<string> => {
    const { access } = await bench.create({ id: "app", config, expose: { kind: "nbd" } });
    assert.ok(access?.kind === "nbd");
    const sum = await run("sh", ["-c", 'nbdcopy "$1" - | head -c 24M | sha256sum', "sh", access.uri]);
    await bench.remove("app");
    return sum;
  };

  assert.equal(await frontOverNbd(), front);
  assert.ok(proxy.seen.length > 0);
  for (const { url } of proxy.seen) assert.match(url, new RegExp(`^http://${mirror.host}/v2/app/blobs/sha256:\\w+\\?ns=registry\\.test$`));
  assert.deepEqual(server.seen, []);
  assert.doesNotMatch(bench.said, /instead|asked directly/);

  proxy.answer = (_, response) => response.writeHead(500).end();
  mirror.reset();
  assert.equal(await frontOverNbd(), front);
  assert.match(bench.said, new RegExp(`${proxy.address}: .*500.*; the registry is asked directly`));
  assert.ok(mirror.seen.some(({ headers }) => headers["range"] !== "bytes=0-0"));
  assert.deepEqual(server.seen, []);

  mirror.inject(() => ({ kind: "answer", status: 503 }), Infinity);
  assert.equal(await frontOverNbd(), front);
  assert.match(bench.said, new RegExp(`mirror ${mirror.host}/app: .*503.*; asking registry\\.test/app instead`));
  assert.ok(server.seen.length > 0);
});
