import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, afterEach, before, describe, it } from "node:test";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { OCI_LAYER_TAR } from "../../src/oci/media-types.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startHostileRegistry, type Fault, type HostileRegistry } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";

const bytes = randomBytes(100_000);
const layer = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };
let upstream: ReferrersRegistry;
/** The first storage is made anew for each test, as some do away with it. */
let [registry, first, second]: HostileRegistry[] = [];
let store: ImageStore;
let source: ByteSource;

before(async () => {
  upstream = await startReferrersRegistry();
  const filler = openRegistryStore({ kind: "registry", host: upstream.host, repository: "a/b" });
  await filler.putBlob(layer, new MemorySource(bytes));
  await filler.close();
  [registry, second] = [await startHostileRegistry(), await startHostileRegistry(upstream.host)];
});
afterEach(async () => {
  await source.close();
  await store.close();
  for (const server of [registry, second]) server.reset();
  await first.stop();
});
after(async () => {
  for (const server of [registry, second]) await server.stop();
  await upstream[Symbol.asyncDispose]();
});

function redirectTo(storage: HostileRegistry): void {
  const location = (url: string): string => `http://${storage.host}${url}?signature=${registry.seen.length}`;
  registry.inject(({ url }) => ({ kind: "answer", status: 307, headers: { location: location(url) } }), Infinity);
}

/** A source that has read from the first storage, of a registry that redirects to the second from now on. A read is one try. */
async function openRedirected(): Promise<void> {
  first = await startHostileRegistry(upstream.host);
  const patience = { retry: { tries: 1 }, timeouts: { answerMs: 200, stallMs: 200 } };
  store = openRegistryStore({ kind: "registry", host: registry.host, repository: "a/b" }, patience);
  source = await store.blobSource(layer);
  redirectTo(first);
  await assertRead(0);
  redirectTo(second);
}

async function assertRead(offset: number): Promise<void> {
  assert.deepEqual(Buffer.from(await source.read(offset, 1000)), bytes.subarray(offset, offset + 1000));
}

const counts = (): number[] => [registry, first, second].map(({ seen }) => seen.length);

describe("a storage that a registry has redirected to", () => {
  const faults: readonly (readonly [string, Fault])[] = [
    ["refuses", { kind: "answer", status: 403 }],
    ["fails", { kind: "answer", status: 503, headers: { "retry-after": "3600" } }],
    ["resets connections", { kind: "reset" }],
    ["does not answer", { kind: "hang" }],
    ["ignores ranges", { kind: "ignoreRange" }],
    ["gives another range", { kind: "headers", headers: { "content-range": `bytes 5-1004/${bytes.length}` } }],
    ["holds a blob of another size", { kind: "headers", headers: { "content-range": "bytes 1000-1999/5000" } }],
    ["sends less than it says", { kind: "truncate", afterBytes: 10 }],
    ["ends early", { kind: "shorten", toBytes: 10 }],
    ["stalls", { kind: "stall", afterBytes: 10 }],
  ];
  for (const [what, fault] of faults) {
    it(`and now ${what} is left for where the registry leads now, in the same try`, async () => {
      await openRedirected();
      first.inject(() => fault, Infinity);
      await assertRead(1000);
      await assertRead(2000);
      assert.deepEqual(counts(), [2, 2, 2]);
    });
  }

  it("and is gone is left for where the registry leads now", async () => {
    await openRedirected();
    await first.stop();
    await Promise.all([1000, 2000, 3000].map(assertRead));
    await assertRead(4000);
    assert.equal(second.seen.length, 4);
  });

  it("is asked of the registry again when it fails at the first read already", async () => {
    await openRedirected();
    first.inject(() => ({ kind: "answer", status: 500 }));
    second.inject(() => ({ kind: "shorten", toBytes: 10 }));
    await assert.rejects(source.read(1000, 1000), { code: "UNAVAILABLE", message: /body ends after 10 of 1000 bytes/ });
    redirectTo(first);
    await assertRead(1000);
    assert.deepEqual(counts(), [3, 3, 1]);
  });

  it("is asked of the registry again when it gave wrong bytes", async () => {
    await openRedirected();
    source.distrust?.();
    await assertRead(1000);
    assert.deepEqual(counts(), [2, 1, 1]);
  });

  it("is asked of the registry again when it has not been read from for five minutes", async (context) => {
    await openRedirected();
    const startMs = Math.round(performance.now());
    let seconds = 0;
    context.mock.method(performance, "now", () => startMs + seconds * 1000);
    for (seconds of [200, 400, 690]) await assertRead(1000);
    assert.deepEqual(counts(), [1, 4, 0]);
    seconds = 991;
    await assertRead(1000);
    assert.deepEqual(counts(), [2, 4, 1]);
  });
});
