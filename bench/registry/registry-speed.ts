/**
 * node bench/registry/registry-speed.ts [MEGABYTES]
 *
 * How fast Debian's registry takes a blob and gives it back on loopback, and what that costs it: the bound of every conversion
 * from registry to registry on one machine. The bytes are random and made before.
 */
import { randomFillSync, createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LoopbackRegistry } from "./loopback-registry.ts";

const MIB = 2 ** 20;
const blobBytes = Math.round(Number(process.argv[2] ?? 512)) * MIB;
const rounds = 3;
const agent = new Agent({ keepAlive: true, maxSockets: 4 });
const blob = Buffer.alloc(blobBytes);

interface Way {
  readonly name: string;
  readonly run: (registry: LoopbackRegistry, digest: string) => Promise<void>;
}

const WAYS: readonly Way[] = [
  { name: "upload, one PUT", run: (registry, digest) => put(registry, digest) },
  ...[1, 4, 16, 64].map((mebibytes): Way => ({
    name: `upload, PATCHes of ${mebibytes} MiB`,
    run: (registry, digest) => patches(registry, digest, mebibytes * MIB),
  })),
  { name: "upload, one PATCH as a stream", run: (registry, digest) => patches(registry, digest, blobBytes) },
  { name: "download", run: (registry, digest) => download(registry, digest) },
];

const directory = await mkdtemp(join(tmpdir(), "lazylayer-bench-"));
try {
  await using registry = await LoopbackRegistry.start(directory);
  console.log(`${"".padEnd(32)}  MB/s (of ${rounds} rounds)        registry's CPU ms/MB   client's CPU ms/MB`);
  const figures = new Map<string, { speed: number; registry: number; client: number }[]>();
  let digest = "";
  for (let round = 0; round < rounds; round++) {
    for (const way of WAYS) {
      // A blob that it has is not read again: each upload is of another one.
      if (way.name !== "download") {
        randomFillSync(blob);
        digest = `sha256:${createHash("sha256").update(blob).digest("hex")}`;
      }
      const [before, own, start] = [await registry.cpuSeconds(), process.cpuUsage(), performance.now()];
      await way.run(registry, digest);
      const seconds = (performance.now() - start) / 1000;
      const { user, system } = process.cpuUsage(own);
      const megabytes = blobBytes / 1e6;
      const cpu = (await registry.cpuSeconds()) - before;
      const row = { speed: megabytes / seconds, registry: (1000 * cpu) / megabytes, client: (user + system) / 1000 / megabytes };
      figures.set(way.name, [...(figures.get(way.name) ?? []), row]);
    }
  }
  for (const [name, rows] of figures) {
    const of = (key: keyof (typeof rows)[number]): number[] => rows.map((row) => row[key]).toSorted((a, b) => a - b);
    const speeds = of("speed").map((speed) => speed.toFixed(0));
    console.log(
      `${name.padEnd(32)}  ${speeds.join("  ").padEnd(28)}  ${of("registry")[1].toFixed(2).padEnd(20)}  ${of("client")[1].toFixed(2)}`,
    );
  }
  const start = performance.now();
  createHash("sha256").update(blob).digest();
  console.log(`SHA-256 by OpenSSL, one thread: ${(blobBytes / 1000 / (performance.now() - start)).toFixed(0)} MB/s`);
} finally {
  agent.destroy();
  await rm(directory, { recursive: true, force: true });
}

async function put(registry: LoopbackRegistry, digest: string): Promise<void> {
  const location = await begin(registry);
  await ask("PUT", withDigest(location, digest), 201, blob);
}

async function patches(registry: LoopbackRegistry, digest: string, pieceBytes: number): Promise<void> {
  let location = await begin(registry);
  for (let at = 0; at < blob.length; at += pieceBytes) {
    const piece = blob.subarray(at, at + pieceBytes);
    const headers = { "content-range": `${at}-${at + piece.length - 1}` };
    const answer = await ask("PATCH", location, 202, piece, headers);
    location = new URL(answer.headers.location ?? "", location);
  }
  await ask("PUT", withDigest(location, digest), 201);
}

async function download(registry: LoopbackRegistry, digest: string): Promise<void> {
  await ask("GET", new URL(`http://${registry.host}/v2/bench/blobs/${digest}`), 200);
}

async function begin(registry: LoopbackRegistry): Promise<URL> {
  const url = new URL(`http://${registry.host}/v2/bench/blobs/uploads/`);
  const answer = await ask("POST", url, 202);
  return new URL(answer.headers.location ?? "", url);
}

function withDigest(location: URL, digest: string): URL {
  const url = new URL(location);
  url.searchParams.set("digest", digest);
  return url;
}

async function ask(
  method: string,
  url: URL,
  expected: number,
  body?: Buffer,
  extra: Record<string, string> = {},
): Promise<IncomingMessage> {
  const headers = { ...extra, "content-length": String(body?.length ?? 0), "content-type": "application/octet-stream" };
  const sent = request(url, { method, agent, headers });
  // Pieces, as a converter hands them over: one buffer of hundreds of megabytes is not how anybody sends a blob.
  for (let at = 0; body !== undefined && at < body.length; at += MIB) {
    if (!sent.write(body.subarray(at, at + MIB))) await once(sent, "drain");
  }
  sent.end();
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  answer.resume();
  await once(answer, "end");
  if (answer.statusCode !== expected) throw new Error(`${method} ${url.href}: status ${answer.statusCode}, expected ${expected}`);
  return answer;
}
