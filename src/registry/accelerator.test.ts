import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { after, before, beforeEach, describe, it } from "node:test";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../../test/support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../../test/support/hostile-registry.ts";
import { startP2pProxy } from "../../test/support/p2p-proxy.ts";
import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { digestOf } from "../oci/digest.ts";
import { Accelerator, type AcceleratorOptions } from "./accelerator.ts";
import { FixedCredentials } from "./credentials.ts";
import { openRegistryStore } from "./registry-store.ts";

const BYTES = Buffer.from(Array.from({ length: 100_000 }, (_, at) => (at * 7 + (at >> 8)) & 0xff));
const BLOB = { mediaType: "application/octet-stream", digest: digestOf(BYTES), size: BYTES.length };
const PATH = `/v2/a/b/blobs/${BLOB.digest}`;
const CREDENTIALS = new FixedCredentials(REGISTRY_USER.username, REGISTRY_USER.password);
const BASIC = `Basic ${Buffer.from(`${REGISTRY_USER.username}:${REGISTRY_USER.password}`).toString("base64")}`;

let registry: DockerRegistry;
let front: HostileRegistry;
let storage: HostileRegistry;

before(async () => {
  registry = await startDockerRegistry({ basicAuth: true });
  front = await startHostileRegistry(registry.host);
  storage = await startHostileRegistry(registry.host);
  const store = openStore(registry.host);
  await store.putBlob(BLOB, new MemorySource(BYTES));
  await store.close();
});
beforeEach(() => [front, storage].forEach((server) => server.reset()));
after(async () => {
  await front.stop();
  await storage.stop();
  await registry.stop();
});

function openStore(host: string, accelerator?: Accelerator) {
  const reference = { kind: "registry", host, repository: "a/b" } as const;
  return openRegistryStore(reference, { credentials: CREDENTIALS, accelerator, retry: { tries: 1 } });
}

/** Never so slow that the next bytes fail to come, and so never done. */
function trickle({ headers }: IncomingMessage, response: ServerResponse): void {
  response.writeHead(206, { "content-range": `${headers.range?.replace("=", " ")}/${BYTES.length}` });
  const timer = setInterval(() => response.write("x"), 20);
  response.on("close", () => clearInterval(timer));
}

/** The blob through a proxy; `read` checks what it gives. */
async function withBlob(
  address: string,
  options: AcceleratorOptions,
  use: (read: (offset: number, length: number) => Promise<void>, blob: ByteSource) => Promise<void>,
): Promise<void> {
  const accelerator = new Accelerator(new URL(address), options);
  const store = openStore(front.host, accelerator);
  const blob = await store.blobSource(BLOB);
  try {
    await use(
      async (offset, length) => assert.ok(Buffer.from(await blob.read(offset, length)).equals(BYTES.subarray(offset, offset + length))),
      blob,
    );
  } finally {
    await blob.close();
    await store.close();
    await accelerator.close();
  }
}

describe("a peer-to-peer proxy", () => {
  it("is asked for ranges by the blob's whole URL, with the registry's authorization; all else goes to the registry", async () => {
    await using proxy = await startP2pProxy();
    await withBlob(`${proxy.address}/`, { notice: assert.fail }, async (read) => {
      await read(10, 20);
      await read(5000, 1000);
    });
    const url = `http://${front.host}${PATH}`;
    assert.deepEqual(proxy.seen, [
      { url, range: "bytes=10-29", authorization: BASIC },
      { url, range: "bytes=5000-5999", authorization: BASIC },
    ]);
    const direct = front.seen.filter(({ headers }) => headers["range"] === "bytes=0-0");
    assert.deepEqual(
      direct.map(({ headers }) => headers["authorization"]),
      [undefined, BASIC],
      "where the blob is, and what for, is asked once",
    );
  });

  it("is asked for the address that the registry leads to, without its authorization", async () => {
    await using proxy = await startP2pProxy();
    const location = `http://${storage.host}/signed${PATH}?X-Signature=a%2Fb`;
    front.inject(
      ({ headers }) => (headers["authorization"] ? { kind: "answer", status: 307, headers: { location } } : undefined),
      Infinity,
    );
    storage.inject(({ headers }) => {
      const [first, last] = /^bytes=(\d+)-(\d+)$/
        .exec(headers["range"] ?? "")!
        .slice(1)
        .map(Number);
      const answered = { "content-range": `bytes ${first}-${last}/${BYTES.length}` };
      return { kind: "answer", status: 206, headers: answered, body: BYTES.subarray(first, last + 1) };
    }, Infinity);
    await withBlob(proxy.address, { notice: assert.fail }, async (read) => await read(7, 9));
    assert.deepEqual(proxy.seen, [{ url: location, range: "bytes=7-15", authorization: undefined }]);
    assert.ok(storage.seen.every(({ headers }) => headers["authorization"] === undefined));
  });

  const faults: readonly (readonly [string, (request: IncomingMessage, response: ServerResponse) => void])[] = [
    ["answers 500", (_, response) => response.writeHead(500).end("hidden")],
    ["answers 404", (_, response) => response.writeHead(404).end()],
    ["answers 200 with the whole blob", (_, response) => response.end(BYTES)],
    ["leads elsewhere", (_, response) => response.writeHead(302, { location: "http://127.0.0.1:1/" }).end()],
    [
      "gives another range",
      (_, response) => response.writeHead(206, { "content-range": `bytes 0-99/${BYTES.length}` }).end(BYTES.subarray(0, 100)),
    ],
    [
      "gives a range of another blob",
      (_, response) => response.writeHead(206, { "content-range": "bytes 100-199/5000" }).end(BYTES.subarray(0, 100)),
    ],
    [
      "gives too little",
      (_, response) => response.writeHead(206, { "content-range": `bytes 100-199/${BYTES.length}` }).end(BYTES.subarray(100, 150)),
    ],
    ["resets connections", (request) => request.socket.resetAndDestroy()],
    ["hangs", () => {}],
    ["trickles", trickle],
  ];
  for (const [what, answer] of faults) {
    it(`that ${what} is gone around at once, and left alone for a while`, async () => {
      await using proxy = await startP2pProxy();
      proxy.answer = answer;
      const notices: string[] = [];
      await withBlob(proxy.address, { patienceMs: 500, notice: (message) => notices.push(message) }, async (read) => {
        await read(100, 100);
        await read(200, 100);
      });
      assert.equal(proxy.seen.length, 1);
      assert.equal(notices.length, 1);
      assert.match(notices[0], /^http:\/\/127\.0\.0\.1:\d+\/accelerator: .*; the registry is asked directly$/);
      assert.ok(!notices[0].includes("hidden"));
    });
  }

  it("that fails again is left alone for longer, up to five minutes, and used when it is back", async (context) => {
    const clock = { seconds: 0 };
    const startMs = Math.round(performance.now());
    context.mock.method(performance, "now", () => startMs + clock.seconds * 1000);
    await using proxy = await startP2pProxy();
    proxy.answer = (_, response) => response.writeHead(503).end();
    await withBlob(proxy.address, {}, async (read) => {
      await read(0, 100);
      let tries = 1;
      for (const pause of [10, 20, 40, 80, 160, 300, 300]) {
        clock.seconds += pause - 1;
        await read(0, 100);
        assert.equal(proxy.seen.length, tries, `after ${pause - 1} s`);
        clock.seconds++;
        await Promise.all([read(0, 100), read(100, 100)]);
        assert.equal(proxy.seen.length, ++tries, `after ${pause} s`);
      }
      proxy.answer = undefined;
      clock.seconds += 300;
      await read(100, 100);
      await read(200, 100);
      assert.equal(proxy.seen.length, tries + 2);
      assert.equal(front.seen.at(-1)?.headers["range"], "bytes=200-299");
    });
  });

  it("that gave wrong bytes is left alone for ten minutes, but not for those of others", async (context) => {
    const clock = { seconds: 0 };
    const startMs = Math.round(performance.now());
    context.mock.method(performance, "now", () => startMs + clock.seconds * 1000);
    await using proxy = await startP2pProxy();
    await withBlob(proxy.address, {}, async (read, blob) => {
      await read(0, 100);
      blob.distrust?.();
      clock.seconds = 599;
      await read(0, 100);
      blob.distrust?.();
      assert.equal(proxy.seen.length, 1);
      clock.seconds = 600;
      await read(0, 100);
      assert.equal(proxy.seen.length, 2);
    });
  });

  it("that is not there is gone around", async () => {
    let address: string;
    {
      await using proxy = await startP2pProxy();
      address = proxy.address;
    }
    await withBlob(address, {}, async (read) => await read(1, 1000));
  });

  it("is not asked for a blob that the registry does not have, or refuses", async () => {
    await using proxy = await startP2pProxy();
    for (const [status, code] of [
      [404, "NOT_FOUND"],
      [403, "DENIED"],
    ] as const) {
      // prettier-ignore
      await withBlob(proxy.address, {}, async (_, blob) => {
        front.inject(() => ({ kind: "answer", status }), Infinity);
        await assert.rejects(blob.read(0, 10), { code });
        front.reset();
        assert.equal((await blob.read(0, 10)).length, 10);
      });
    }
    assert.equal(proxy.seen.length, 2);
  });

  it("that hangs is left when the blob is closed", async () => {
    await using proxy = await startP2pProxy();
    const asked = Promise.withResolvers<void>();
    proxy.answer = () => asked.resolve();
    await withBlob(proxy.address, {}, async (_, blob) => {
      const reading = assert.rejects(blob.read(0, 10), { code: "UNAVAILABLE", message: /was closed/ });
      await asked.promise;
      await blob.close();
      await reading;
    });
  });
});
