import assert from "node:assert/strict";
import { once } from "node:events";
import { spawn } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import fc from "fast-check";
import { content, keyOf, ObservedSource } from "../../test/support/observed-source.ts";
import { MemorySource } from "../bytes/source.ts";
import { BlockCache } from "./block-cache.ts";
import type { Eviction } from "./segment-pool.ts";
import { SEGMENT_CHUNKS } from "./segment-file.ts";
import { SEGMENT_DATA_OFFSET } from "./shared-chunks.ts";

const CHUNK = 4096;
const SEGMENT_BYTES = CHUNK * SEGMENT_CHUNKS;
const ROOMY = { capacityBytes: 2 ** 30, chunkBytes: CHUNK };

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "block-cache-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** Reads everything through a fresh cache on the same directory and answers what had to be fetched. */
async function reread(bytes: Uint8Array): Promise<[number, number][]> {
  const inner = new ObservedSource(bytes);
  const cache = await BlockCache.open(directory, ROOMY);
  const source = cache.source(keyOf(bytes), inner);
  assert.deepEqual(Buffer.from(await source.read(0, bytes.length)), bytes);
  await source.close();
  return inner.reads;
}

async function fill(bytes: Uint8Array): Promise<string> {
  await reread(bytes);
  assert.deepEqual(await reread(bytes), [], "everything is stored");
  return join(directory, readdirSync(directory)[0]);
}

function flip(path: string, position: number): void {
  const bytes = readFileSync(path);
  bytes[position] ^= 0x10;
  writeFileSync(path, bytes);
}

test("reads through the cache equal reads of the plain source, whatever was stored, discarded or cut before", async () => {
  const bytes = content(SEGMENT_BYTES + 5 * CHUNK + 77);
  const range = fc.record({
    offset: fc.nat(bytes.length),
    length: fc.nat(40 * CHUNK),
    act: fc.constantFrom("read", "read", "discard", "cut", "reopen"),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 12 }), async (steps) => {
      const cache = await BlockCache.open(directory, { capacityBytes: 30 * CHUNK, chunkBytes: CHUNK });
      let source = cache.source(keyOf(bytes), new MemorySource(bytes));
      for (const { offset, length: wanted, act } of steps) {
        const length = Math.min(wanted, bytes.length - offset);
        if (act === "discard") source.discard(offset, length);
        if (act === "cut") for (const name of readdirSync(directory)) truncateSync(join(directory, name), wanted);
        if (act === "reopen") {
          await source.close();
          source = cache.source(keyOf(bytes), new MemorySource(bytes));
        }
        const expected = bytes.subarray(offset, offset + length);
        const target = new Uint8Array(length);
        if (source.shared.readSync(offset, target, false)) assert.deepEqual(Buffer.from(target), expected);
        assert.deepEqual(Buffer.from(await source.read(offset, length)), expected);
      }
      await source.close();
    }),
    { numRuns: 60 },
  );
});

test("neighbouring missing chunks are fetched in one read, and only they", async () => {
  const bytes = content(20 * CHUNK);
  const inner = new ObservedSource(bytes);
  const source = (await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner);
  await source.read(5 * CHUNK + 1, 10);
  await source.settled();
  await source.read(2 * CHUNK, 8 * CHUNK);
  assert.deepEqual(inner.reads, [
    [5 * CHUNK, CHUNK],
    [2 * CHUNK, 3 * CHUNK],
    [6 * CHUNK, 4 * CHUNK],
  ]);
  await source.close();
});

test("what is stored of a range can be told without fetching any of it, or making files for it", async () => {
  const bytes = content(3 * SEGMENT_BYTES + 100);
  const cache = await BlockCache.open(directory, ROOMY);
  const before = cache.source(keyOf(bytes), new ObservedSource(bytes));
  await before.read(CHUNK, 2 * CHUNK);
  await before.read(2 * SEGMENT_BYTES - CHUNK, 2 * CHUNK);
  await before.close();
  const files = readdirSync(directory);
  const inner = new ObservedSource(bytes);
  const source = cache.source(keyOf(bytes), inner);
  const found: [end: number, isStored: boolean][] = [];
  for (let at = 5; at < bytes.length;) {
    const { end, isStored } = await source.stretch(at, bytes.length);
    found.push([end, isStored]);
    at = end;
  }
  assert.deepEqual(found, [
    [CHUNK, false],
    [3 * CHUNK, true],
    [2 * SEGMENT_BYTES - CHUNK, false],
    [2 * SEGMENT_BYTES + CHUNK, true],
    [bytes.length, false],
  ]);
  assert.deepEqual(inner.reads, []);
  assert.deepEqual(readdirSync(directory), files);
  await source.close();
});

test("readers of one missing chunk share a single fetch", async () => {
  const bytes = content(3 * CHUNK);
  const inner = new ObservedSource(bytes);
  const source = (await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner);
  await Promise.all(Array.from({ length: 10 }, async (_, i) => await source.read(CHUNK + i, 100)));
  assert.equal(inner.reads.length, 1);
  await source.close();
});

test("a sequential reader is read ahead of, a jumping one is not", async () => {
  const bytes = content(1000 * CHUNK);
  const inner = new ObservedSource(bytes);
  const source = (await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner);
  for (const chunk of [500, 300, 700]) await source.read(chunk * CHUNK, CHUNK);
  assert.deepEqual(
    inner.reads.map(([, length]) => length),
    [CHUNK, CHUNK, CHUNK],
  );
  await source.read(701 * CHUNK, CHUNK);
  await source.settled();
  assert.deepEqual(inner.reads.slice(3), [
    [701 * CHUNK, CHUNK],
    [702 * CHUNK, 128 * 1024],
  ]);
  await source.close();
});

test("a failing source fails its readers only, and the next read asks again", async () => {
  const bytes = content(4 * CHUNK);
  const inner = new ObservedSource(bytes);
  const source = (await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), inner);
  inner.failing = true;
  await assert.rejects(source.read(0, 10), { code: "UNAVAILABLE" });
  inner.failing = false;
  assert.deepEqual(Buffer.from(await source.read(0, 10)), bytes.subarray(0, 10));
  await source.close();
});

test("a flipped bit in a stored chunk is noticed and only that run is fetched again", async () => {
  const bytes = content(6 * CHUNK);
  const path = await fill(bytes);
  flip(path, SEGMENT_DATA_OFFSET + 3 * CHUNK + 100);
  assert.notDeepEqual(await reread(bytes), []);
  assert.deepEqual(await reread(bytes), [], "repaired on disk");
});

for (const [place, position] of [
  ["the header", 9],
  ["the header's checksum", 61],
  ["a slot's checksum", 64 + 8],
  ["a slot's check", 64 + 8 + 5],
] as const) {
  test(`a flipped bit in ${place} is never trusted`, async () => {
    const bytes = content(6 * CHUNK);
    const path = await fill(bytes);
    flip(path, position);
    assert.notDeepEqual(await reread(bytes), []);
    assert.deepEqual(await reread(bytes), []);
  });
}

for (const length of [0, 10, 4095, SEGMENT_DATA_OFFSET + 2 * CHUNK + 7]) {
  test(`a file cut to ${length} bytes is filled again`, async () => {
    const bytes = content(6 * CHUNK);
    const path = await fill(bytes);
    truncateSync(path, length);
    assert.notDeepEqual(await reread(bytes), []);
    assert.deepEqual(await reread(bytes), []);
  });
}

test("slots written without their bytes, as after a power cut, are never trusted", async () => {
  const bytes = content(6 * CHUNK);
  const path = await fill(bytes);
  const file = openSync(path, "r+");
  const { size } = statSync(path);
  ftruncateSync(file, SEGMENT_DATA_OFFSET);
  ftruncateSync(file, size);
  closeSync(file);
  assert.deepEqual(await reread(bytes), [[0, bytes.length]]);
});

test("bytes that change under a reader are noticed by one that does not check them itself", async () => {
  const bytes = content(6 * CHUNK);
  const path = await fill(bytes);
  const source = (await BlockCache.open(directory, ROOMY)).source(keyOf(bytes), new MemorySource(bytes));
  await source.read(0, 1);
  const target = new Uint8Array(100);
  assert.equal(source.shared.readSync(CHUNK, target, false), true);
  const file = openSync(path, "r+");
  writeSync(file, Buffer.from("junk"), 0, 4, SEGMENT_DATA_OFFSET + CHUNK + 3000);
  closeSync(file);
  assert.equal(source.shared.readSync(CHUNK, target, false), false);
  assert.deepEqual(Buffer.from(await source.read(CHUNK, CHUNK)), bytes.subarray(CHUNK, 2 * CHUNK));
  await source.settled();
  assert.equal(source.shared.readSync(CHUNK, target, false), true);
  await source.close();
});

test("a process killed while it fills the cache leaves nothing that is trusted wrongly", async () => {
  const bytes = content(3 * SEGMENT_BYTES);
  const program = `
    import { MemorySource } from ${JSON.stringify(new URL("../bytes/source.ts", import.meta.url).href)};
    import { BlockCache } from ${JSON.stringify(new URL("block-cache.ts", import.meta.url).href)};
    import { readFileSync } from "node:fs";
    const bytes = readFileSync(process.argv[1]);
    const source = (await BlockCache.open(process.argv[2], ${JSON.stringify(ROOMY)})).source(process.argv[3], new MemorySource(bytes));
    for (let at = 0; at < bytes.length; at += 3 * 4096) {
      await source.read(at, Math.min(3 * 4096, bytes.length - at));
      if (at >= bytes.length / 3) process.stdout.write(".");
    }
    setInterval(() => {}, 1000);`;
  const blob = join(tmpdir(), `killed-${process.pid}`);
  writeFileSync(blob, bytes);
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, blob, directory, keyOf(bytes)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
  await rm(blob);
  const fetched = (await reread(bytes)).reduce((sum, [, length]) => sum + length, 0);
  assert.ok(fetched < bytes.length, "what was stored before is used");
});

test("a full disk only means that nothing is stored", async () => {
  const bytes = content(6 * CHUNK);
  symlinkSync("/dev/full", join(directory, `${keyOf(bytes).replace(":", "-")}.${CHUNK}.0`));
  const failures: unknown[] = [];
  const inner = new ObservedSource(bytes);
  const cache = await BlockCache.open(directory, { ...ROOMY, onDiskFailure: (error) => failures.push(error) });
  const source = cache.source(keyOf(bytes), inner);
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(Buffer.from(await source.read(0, bytes.length)), bytes);
    await source.settled();
  }
  assert.equal(inner.reads.length, 2);
  assert.equal(failures.length, 1, "reported once");
  assert.match(String(failures[0]), /ENOSPC/);
  await source.close();
});

test("the directory stays near its capacity, and the segments used last stay", async () => {
  const bytes = content(8 * SEGMENT_BYTES);
  const capacityBytes = 3 * SEGMENT_BYTES;
  const evictions: Eviction[] = [];
  const cache = await BlockCache.open(directory, { capacityBytes, chunkBytes: CHUNK, onEviction: (eviction) => evictions.push(eviction) });
  const source = cache.source(keyOf(bytes), new MemorySource(bytes));
  for (let segment = 0; segment < 8; segment++) {
    await source.read(segment * SEGMENT_BYTES, SEGMENT_BYTES);
    await source.read(0, CHUNK);
    await source.settled();
    const used = readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).blocks * 512, 0);
    assert.ok(used <= capacityBytes, `${used} bytes after segment ${segment}`);
    assert.ok((evictions.at(-1)?.usedBytes ?? 0) < capacityBytes);
  }
  const dropped = evictions.reduce((sum, eviction) => ({ files: sum.files + eviction.files, bytes: sum.bytes + eviction.bytes }), {
    files: 0,
    bytes: 0,
  });
  // Some may have come and gone twice.
  assert.ok(dropped.files >= 8 - readdirSync(directory).length, `${dropped.files} files`);
  assert.ok(dropped.bytes > 8 * SEGMENT_BYTES - capacityBytes, `${dropped.bytes} bytes`);
  assert.equal(source.shared.readSync(7 * SEGMENT_BYTES, new Uint8Array(10), true), true);
  assert.equal(source.shared.readSync(SEGMENT_BYTES, new Uint8Array(10), true), false);
  await source.close();
});

test("two processes' caches on one directory serve each other and survive each other's evictions", async () => {
  const bytes = content(4 * SEGMENT_BYTES);
  const options = { capacityBytes: 2 * SEGMENT_BYTES, chunkBytes: CHUNK };
  const [one, other] = await Promise.all([BlockCache.open(directory, options), BlockCache.open(directory, options)]);
  const inner = new ObservedSource(bytes);
  const first = one.source(keyOf(bytes), new MemorySource(bytes));
  const second = other.source(keyOf(bytes), inner);
  await first.read(0, CHUNK * 9);
  await first.settled();
  await second.read(0, CHUNK * 9);
  assert.deepEqual(inner.reads, []);
  for (let round = 0; round < 2; round++) {
    const halves = await Promise.all([first.read(0, bytes.length), second.read(0, bytes.length)]);
    for (const half of halves) assert.deepEqual(Buffer.from(half), bytes);
  }
  await Promise.all([first.close(), second.close()]);
});

test("a key that is not a digest never becomes a file name", async () => {
  const cache = await BlockCache.open(directory, ROOMY);
  for (const key of ["sha256:../../etc/passwd", "sha256:abc", `sha1:${"a".repeat(40)}`, `sha256:${"A".repeat(64)}`]) {
    assert.throws(() => cache.source(key, new MemorySource(new Uint8Array(1))), { code: "USAGE" });
  }
});
