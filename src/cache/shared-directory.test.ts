import assert from "node:assert/strict";
import { once } from "node:events";
import { spawn } from "node:child_process";
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../../test/support/command.ts";
import { content, keyOf, ObservedSource } from "../../test/support/observed-source.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { MemorySource } from "../bytes/source.ts";
import { BlockCache } from "./block-cache.ts";
import type { CachedSource } from "./cached-source.ts";
import { SEGMENT_CHUNKS } from "./segment-file.ts";

/* Caches that share a directory, and a disk with others. Two caches of one process know no more of each other than two processes do. */

const CHUNK = 4096;
const SEGMENT_BYTES = CHUNK * SEGMENT_CHUNKS;
const ROOMY = { capacityBytes: 2 ** 30, chunkBytes: CHUNK };

let temporary: TemporaryDirectory;
let directory: string;
beforeEach(async () => {
  temporary = await TemporaryDirectory.create();
  directory = temporary.path;
});
afterEach(async () => await temporary[Symbol.asyncDispose]());

/** Closes the source at the end of the block that declares it with `await using`. */
function disposable(source: CachedSource): AsyncDisposable & { readonly source: CachedSource } {
  return { source, [Symbol.asyncDispose]: async () => await source.close() };
}

function segmentFiles(bytes: Uint8Array): string[] {
  const names = readdirSync(directory).filter((name) => name.startsWith(keyOf(bytes).replace(":", "-")));
  return names.map((name) => join(directory, name));
}

test("what another process has stored meanwhile is found, although the segment was open", async () => {
  const bytes = content(20 * CHUNK);
  const inner = new ObservedSource(bytes);
  const [one, other] = [await BlockCache.open(directory, ROOMY), await BlockCache.open(directory, ROOMY)];
  await using first = disposable(one.source(keyOf(bytes), new MemorySource(bytes)));
  await using second = disposable(other.source(keyOf(bytes), inner));
  await second.source.read(0, CHUNK);
  await first.source.read(0, 10 * CHUNK);
  await first.source.settled();
  assert.deepEqual(Buffer.from(await second.source.read(0, 12 * CHUNK)), bytes.subarray(0, 12 * CHUNK));
  assert.deepEqual(inner.reads, [
    [0, CHUNK],
    [10 * CHUNK, 2 * CHUNK],
  ]);
});

test("what another process fetches is waited for, and fetched when that fails", async () => {
  const bytes = content(20 * CHUNK);
  const caches = await Promise.all(Array.from({ length: 4 }, async () => await BlockCache.open(directory, ROOMY)));
  const inners = caches.map(() => new ObservedSource(bytes, 50));
  const sources = caches.map((cache, i) => cache.source(keyOf(bytes), inners[i]));
  const read = async (i: number, chunk: number): Promise<Buffer> => {
    await sleep(10 * i);
    return Buffer.from(await sources[i].read(chunk * CHUNK, 3 * CHUNK));
  };
  for (const each of await Promise.all(caches.map(async (_, i) => await read(i, 1)))) {
    assert.deepEqual(each, Buffer.from(bytes.subarray(CHUNK, 4 * CHUNK)));
  }
  assert.equal(inners.flatMap(({ reads }) => reads).length, 1);
  inners[0].failing = true;
  const results = await Promise.allSettled(caches.map(async (_, i) => await read(i, 9)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ["rejected", "fulfilled", "fulfilled", "fulfilled"],
  );
  await Promise.all(sources.map(async (source) => await source.close()));
});

test("a process that is killed while it fetches is not waited for long", async () => {
  const bytes = content(4 * CHUNK);
  const script = `
    import { BlockCache } from ${JSON.stringify(import.meta.resolve("./block-cache.ts"))};
    const cache = await BlockCache.open(${JSON.stringify(directory)}, ${JSON.stringify(ROOMY)});
    const stuck = { name: "stuck", size: ${bytes.length}, read: async () => await new Promise(() => {}), close: async () => {} };
    setInterval(() => {}, 1000);
    setTimeout(() => console.log("stuck"), 1200);
    await cache.source(${JSON.stringify(keyOf(bytes))}, stuck).read(0, 10);
  `;
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "--input-type=module", "-e", script]);
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
  const inner = new ObservedSource(bytes);
  await using opened = disposable((await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner));
  const start = performance.now();
  assert.deepEqual(Buffer.from(await opened.source.read(0, bytes.length)), bytes);
  assert.ok(inner.reads.length > 0);
  assert.ok(performance.now() - start > 100, "it was waited for");
});

test("what was found to be wrong is not on disk for anybody any more", async () => {
  const bytes = content(4 * CHUNK);
  const wrong = new Uint8Array(bytes);
  wrong[CHUNK + 5] ^= 1;
  const cache = await BlockCache.open(directory, ROOMY);
  const source = cache.source(keyOf(bytes), new MemorySource(wrong));
  await source.read(0, bytes.length);
  await source.settled();
  source.discard(CHUNK, 10);
  await source.close();
  const inner = new ObservedSource(bytes);
  await using again = disposable((await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner));
  assert.deepEqual(Buffer.from(await again.source.read(0, bytes.length)), bytes);
  assert.deepEqual(inner.reads, [[CHUNK, CHUNK]]);
});

test("what was wrong is fetched, and not taken from whoever stores the same again", async () => {
  const bytes = content(6 * CHUNK);
  const wrong = new Uint8Array(bytes);
  wrong[CHUNK + 5] ^= 1;
  for (const delayMs of [0, 1, 2, 3, 5]) {
    const key = keyOf(content(6 * CHUNK, 10 + delayMs));
    const inner = new ObservedSource(wrong);
    const opened = await Promise.all([0, 1].map(async () => await BlockCache.open(directory, ROOMY)));
    const [source, other] = [opened[0].source(key, inner), opened[1].source(key, new MemorySource(wrong))];
    await source.read(0, bytes.length);
    // What it fetched may be on its way to the disk still.
    await sleep(delayMs);
    source.discard(CHUNK, 10);
    await other.read(0, bytes.length);
    await other.settled();
    inner.spoil = (found, offset) => found.set(bytes.subarray(offset, offset + found.length));
    assert.deepEqual(Buffer.from(await source.read(0, bytes.length)), bytes, `after ${delayMs} ms`);
    await Promise.all([source.close(), other.close()]);
  }
});

test("what is known to be wrong is not kept, and nobody waits for it", async () => {
  const bytes = content(8 * CHUNK);
  const wrong = new Uint8Array(bytes);
  wrong[CHUNK + 5] ^= 1;
  const source = (await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), new MemorySource(wrong));
  source.keepOnly((offset, found) => Buffer.from(found).equals(bytes.subarray(offset, offset + found.length)));
  await source.read(0, 4 * CHUNK);
  await source.read(4 * CHUNK, 4 * CHUNK);
  await source.settled();
  const inner = new ObservedSource(bytes);
  await using other = disposable((await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner));
  assert.deepEqual(Buffer.from(await other.source.read(0, bytes.length)), bytes);
  assert.deepEqual(inner.reads, [[0, 4 * CHUNK]]);
  await source.close();
});

test("segments that another process uses are not the first to be evicted, and evicted ones take no room", async () => {
  const used = content(3 * SEGMENT_BYTES, 2);
  const passing = content(14 * SEGMENT_BYTES, 3);
  const options = { capacityBytes: 9 * SEGMENT_BYTES, chunkBytes: CHUNK, tellMs: 20 };
  const [one, other] = [await BlockCache.open(directory, options), await BlockCache.open(directory, options)];
  const inner = new ObservedSource(used);
  await using steady = disposable(one.source(keyOf(used), inner));
  await using fast = disposable(other.source(keyOf(passing), new MemorySource(passing)));
  await steady.source.read(0, used.length);
  await steady.source.settled();
  const fetched = inner.reads.length;
  for (let segment = 0; segment < 14; segment++) {
    await sleep(10);
    const start = Date.now();
    for (let at = 0; at < 3; at++) await steady.source.read(at * SEGMENT_BYTES, CHUNK);
    while (segmentFiles(used).some((path) => statSync(path).mtimeMs < start)) await sleep(5);
    await fast.source.read(segment * SEGMENT_BYTES, SEGMENT_BYTES);
    await fast.source.settled();
  }
  assert.equal(inner.reads.length, fetched, "none of what is used was evicted");
  // Now the other is used, and the first has to let go of what it has open.
  for (let round = 0; round < 2; round++) await fast.source.read(0, passing.length);
  await fast.source.settled();
  await sleep(100);
  const open = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // closed meanwhile
    }
  });
  assert.deepEqual(
    open.filter((path) => path.startsWith(directory) && path.endsWith("(deleted)")),
    [],
  );
});

test("where nothing can be kept, nobody waits for it", async () => {
  const bytes = content(6 * CHUNK);
  const path = join(directory, `${keyOf(bytes).replace(":", "-")}.${CHUNK}.0`);
  await using opened = disposable((await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), new MemorySource(bytes)));
  await opened.source.read(0, CHUNK);
  await opened.source.settled();
  const start = performance.now();
  // A file may not grow beyond what it has.
  await run("prlimit", [`--pid=${process.pid}`, `--fsize=${statSync(path).size}:unlimited`]);
  try {
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(Buffer.from(await opened.source.read(0, bytes.length)), bytes);
      await opened.source.settled();
    }
  } finally {
    await run("prlimit", [`--pid=${process.pid}`, "--fsize=unlimited:unlimited"]);
  }
  assert.ok(!opened.source.shared.isStored(4), "it could be kept");
  assert.ok(performance.now() - start < 1500, "it was not waited for");
});

test("on a full disk, what is read last takes the room of what is not", async () => {
  const disk = join(directory, "disk");
  await mkdir(disk);
  await run("mount", ["-t", "tmpfs", "-o", "size=16m", "lazylayer-test", disk]);
  try {
    const bytes = content(30 * SEGMENT_BYTES);
    const cache = await BlockCache.open(disk, ROOMY);
    await using opened = disposable(cache.source(keyOf(bytes), new MemorySource(bytes)));
    for (let at = 0; at < bytes.length; at += SEGMENT_BYTES) {
      assert.deepEqual(Buffer.from(await opened.source.read(at, SEGMENT_BYTES)), bytes.subarray(at, at + SEGMENT_BYTES));
      await opened.source.settled();
    }
    assert.ok(opened.source.shared.isStored(29 * SEGMENT_CHUNKS));
  } finally {
    await run("umount", [disk]);
  }
});
