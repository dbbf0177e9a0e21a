import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { findDataExtents } from "../../test/support/data-extents.ts";
import { HeldDevice, patternBytes } from "../../test/support/held-device.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { openCache } from "../../test/support/turbo-device.ts";
import { nativeLayer, WatchedPlace } from "../../test/support/turbo-image.ts";
import { digestOf } from "../oci/digest.ts";
import { parseImageConfig } from "./image-config-schema.ts";
import { LayerDownloads, type DownloadableLayer, type DownloadCounts, type LayerDownloadsOptions } from "./layer-downloads.ts";
import { SwitchedSource } from "./switched-source.ts";

const MIB = 2 ** 20;
const BLOB = patternBytes(5 * MIB + 1234);
const OTHER = patternBytes(MIB - 5).reverse();
const PATIENCE_MS = 20_000;

/** Layers of a device, with directories that do not exist yet. */
class Bench implements AsyncDisposable {
  readonly place = new WatchedPlace([BLOB, OTHER].map(nativeLayer));
  readonly notices: string[] = [];
  readonly directory: TemporaryDirectory;
  readonly #locked = new Set<string>();
  readonly #running: LayerDownloads[] = [];
  readonly #sources: SwitchedSource[] = [];

  private constructor(directory: TemporaryDirectory) {
    this.directory = directory;
  }

  static async create(): Promise<Bench> {
    return new Bench(await TemporaryDirectory.create());
  }

  async layer(name: string, blob: Uint8Array): Promise<DownloadableLayer> {
    const descriptor = { mediaType: "application/octet-stream", digest: digestOf(blob), size: blob.length };
    const source = new SwitchedSource(await this.place.blobSource(descriptor), (message) => this.notices.push(message));
    this.#sources.push(source);
    return { directory: this.directory.join(name), descriptor, place: this.place, source, kept: undefined };
  }

  start(layers: readonly DownloadableLayer[], settings: object = {}, options: Partial<LayerDownloadsOptions> = {}): LayerDownloads {
    const { download } = parseImageConfig(JSON.stringify({ download: { tryCnt: 1, maxMBps: 0, ...settings } }), "config.json").config;
    assert.ok(download !== undefined);
    const downloads = new LayerDownloads(layers, download, {
      delayMs: 0,
      lock: async (directory) => this.#lock(directory),
      findDataExtents,
      notice: (message) => this.notices.push(message),
      ...options,
    });
    this.#running.push(downloads);
    return downloads;
  }

  /** Bytes that the place was asked for since the last call. */
  fetched(): number {
    return this.place.reads.splice(0).reduce((sum, { length }) => sum + length, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const downloads of this.#running) await downloads.stop();
    for (const source of this.#sources) await source.close();
    await this.directory[Symbol.asyncDispose]();
  }

  #lock(directory: string): { close(): void } | undefined {
    if (this.#locked.has(directory)) return undefined;
    this.#locked.add(directory);
    return { close: () => void this.#locked.delete(directory) };
  }
}

async function until(isSo: () => boolean, what: () => unknown): Promise<void> {
  for (let waitedMs = 0; !isSo(); waitedMs += 10) {
    assert.ok(waitedMs < PATIENCE_MS, JSON.stringify(what()));
    await sleep(10);
  }
}

/** Waits until nothing more is to be done. */
async function over({ counts }: LayerDownloads, notices: readonly string[]): Promise<DownloadCounts> {
  const { total } = counts;
  await until(
    () => counts.done + counts.failed === total,
    () => [counts, notices],
  );
  return { ...counts };
}

/** A blob's file as an earlier process left it. */
async function leavePart(directory: string, size: number, parts: readonly (readonly [offset: number, bytes: Uint8Array])[]): Promise<void> {
  await mkdir(directory);
  await using file = await open(`${directory}/.download`, "wx");
  for (const [offset, bytes] of parts) await file.write(bytes, 0, bytes.length, offset);
  await file.truncate(size);
}

async function isWhole({ directory, source }: DownloadableLayer, blob: Uint8Array): Promise<void> {
  assert.deepEqual(await readdir(directory), ["overlaybd.commit"]);
  assert.ok((await readFile(`${directory}/overlaybd.commit`)).equals(blob));
  assert.ok(Buffer.from(await source.read(0, blob.length)).equals(blob));
}

describe("layers that are downloaded", () => {
  test("come to their directories one after the other, and are read there from then on", async () => {
    await using bench = await Bench.create();
    const layers = [await bench.layer("a/b", BLOB), await bench.layer("c", OTHER)];
    const downloads = bench.start(layers);
    assert.deepEqual(await over(downloads, bench.notices), { total: 2, done: 2, failed: 0, bytes: BLOB.length + OTHER.length });
    const digests = bench.place.reads.map(({ digest }) => digest);
    assert.deepEqual([...new Set(digests)], [digestOf(BLOB), digestOf(OTHER)]);
    assert.deepEqual(
      digests,
      digests.toSorted((one, other) => Number(one === digestOf(OTHER)) - Number(other === digestOf(OTHER))),
    );
    bench.place.spoil = () => assert.fail("nothing is read of the place any more");
    await isWhole(layers[0], BLOB);
    await isWhole(layers[1], OTHER);
    assert.deepEqual(bench.notices, []);
    assert.equal(bench.place.open, 2, "what the device reads is open, and nothing else");
  });

  test("are gone on with where an earlier process stopped, or another program", async () => {
    await using bench = await Bench.create();
    const layer = await bench.layer("a", BLOB);
    const parts = [0, 2 * MIB].map((offset) => [offset, BLOB.subarray(offset, offset + 1.5 * MIB)] as const);
    await leavePart(layer.directory, BLOB.length, parts);
    await over(bench.start([layer]), bench.notices);
    assert.equal(bench.fetched(), BLOB.length - 3 * MIB);
    await isWhole(layer, BLOB);

    const complete = await bench.layer("b", BLOB);
    await leavePart(complete.directory, BLOB.length, [[0, BLOB]]);
    await over(bench.start([complete]), bench.notices);
    assert.equal(bench.fetched(), 0);
    await isWhole(complete, BLOB);
  });

  test("begin anew where what is there cannot be theirs, or cannot be told from holes", async () => {
    await using bench = await Bench.create();
    const resized = await bench.layer("a", BLOB);
    await leavePart(resized.directory, BLOB.length + 1, [[0, Buffer.alloc(MIB, 1)]]);
    await over(bench.start([resized]), bench.notices);
    await isWhole(resized, BLOB);
    assert.equal(bench.fetched(), BLOB.length);
    const untold = await bench.layer("b", BLOB);
    await leavePart(untold.directory, BLOB.length, [[0, Buffer.alloc(MIB, 1)]]);
    await over(bench.start([untold], {}, { findDataExtents: undefined }), bench.notices);
    await isWhole(untold, BLOB);
  });

  test("are thrown away when their digest is another, and then downloaded whole", async () => {
    await using bench = await Bench.create();
    const layer = await bench.layer("a", BLOB);
    await leavePart(layer.directory, BLOB.length, [[0, Buffer.alloc(MIB, 1)]]);
    const downloads = bench.start([layer], { tryCnt: 2 });
    await until(
      () => bench.notices.length > 0,
      () => downloads.counts,
    );
    assert.match(
      bench.notices[0],
      /\/a: download of sha256:.* failed, try 1 of 2: .*\.download: content has digest .*; it will be tried again$/,
    );
    assert.deepEqual(await readdir(layer.directory), []);
    await over(downloads, bench.notices);
    await isWhole(layer, BLOB);
    assert.equal(bench.fetched(), 2 * BLOB.length - MIB);
    assert.equal(bench.notices.length, 1);
  });

  test("stay remote when they are wrong each time, and others come nevertheless", async () => {
    await using bench = await Bench.create();
    bench.place.spoil = (bytes, digest, offset) => {
      if (digest === digestOf(BLOB) && offset === 0) bytes[7] ^= 1;
    };
    const layers = [await bench.layer("a", BLOB), await bench.layer("b", OTHER)];
    const { done, failed } = await over(bench.start(layers, { tryCnt: 2 }), bench.notices);
    assert.deepEqual([done, failed, bench.notices.length], [1, 1, 2]);
    assert.match(bench.notices[1], /try 2 of 2: .* it stays remote$/);
    assert.deepEqual(await readdir(layers[0].directory), []);
    await isWhole(layers[1], OTHER);
    bench.fetched();
    await layers[0].source.read(5, 5);
    assert.equal(bench.fetched(), 5);
  });

  test("are fetched by one of those who want them, and taken by the others", async () => {
    await using bench = await Bench.create();
    const layers = await Promise.all([0, 1, 2].map(async () => await bench.layer("a", BLOB)));
    const all = layers.map((layer) => bench.start([layer]));
    const counts = await Promise.all(all.map(async (downloads) => await over(downloads, bench.notices)));
    assert.equal(
      counts.reduce((sum, { bytes }) => sum + bytes, 0),
      BLOB.length,
    );
    assert.equal(bench.fetched(), BLOB.length);
    for (const layer of layers) await isWhole(layer, BLOB);
    assert.deepEqual(bench.notices, []);
  });

  test("have what is kept of them already, and once more if that was wrong", async () => {
    await using bench = await Bench.create();
    await using cacheDirectory = await TemporaryDirectory.create();
    const cache = await openCache(cacheDirectory);
    for (const isWrong of [false, true]) {
      const layer = await bench.layer(`${isWrong}`, isWrong ? OTHER : BLOB);
      const { digest, size } = layer.descriptor;
      bench.place.spoil = (bytes) => void (isWrong && (bytes[0] ^= 1));
      const kept = cache.source(digest, layer.source);
      for (const offset of [0, Math.floor(size / 2)]) await kept.read(offset, 100_000);
      await kept.settled();
      bench.place.spoil = () => {};
      const before = bench.fetched();
      assert.ok(before > 0);
      await over(bench.start([{ ...layer, kept }], { tryCnt: 2 }), bench.notices);
      assert.equal(bench.fetched(), size - before + (isWrong ? size : 0));
      await isWhole(layer, isWrong ? OTHER : BLOB);
      await kept.close();
    }
    assert.equal(bench.notices.length, 1);
  });

  test("are not taken from a file of that name with other bytes, which stays", async () => {
    await using bench = await Bench.create();
    const layers = [await bench.layer("size", BLOB), await bench.layer("bytes", BLOB)];
    const others = [OTHER, Buffer.from(BLOB).fill(1, 100, 101)];
    for (const [index, { directory }] of layers.entries()) {
      await mkdir(directory);
      await writeFile(`${directory}/overlaybd.commit`, others[index]);
    }
    const { failed } = await over(bench.start(layers), bench.notices);
    assert.equal(failed, 2);
    assert.match(bench.notices[0], /has 1048571 bytes, expected 5244114; .*remove it to have the layer downloaded; it stays remote$/);
    assert.match(bench.notices[1], /overlaybd\.commit: content has digest .*remove it to have/);
    for (const [index, { directory, source }] of layers.entries()) {
      assert.ok((await readFile(`${directory}/overlaybd.commit`)).equals(others[index]));
      assert.ok(Buffer.from(await source.read(0, BLOB.length)).equals(BLOB));
    }
  });

  test("leave what is there when they are stopped, and nothing is asked for any more", async () => {
    await using bench = await Bench.create();
    const layer = await bench.layer("a", BLOB);
    const downloads = bench.start([layer], { maxMBps: 1, blockSize: 65_536 });
    await until(
      () => downloads.counts.bytes > 0,
      () => bench.notices,
    );
    await downloads.stop();
    const { bytes } = downloads.counts;
    assert.ok(bytes < BLOB.length);
    assert.equal(bench.place.open, 1);
    bench.fetched();
    assert.deepEqual(await readdir(layer.directory), [".download"]);
    await over(bench.start([layer]), bench.notices);
    await isWhole(layer, BLOB);
    assert.equal(bench.fetched(), BLOB.length - bytes);
    const idle = bench.start([await bench.layer("b", OTHER)], {}, { delayMs: Number.MAX_SAFE_INTEGER });
    await idle.stop();
    assert.deepEqual([idle.counts.bytes, existsSync(bench.directory.join("b"))], [0, false]);
  });

  test("stand back, but for one request at a time, while the device waits for a registry", async () => {
    await using bench = await Bench.create();
    const layer = await bench.layer("a", BLOB);
    const remote = new HeldDevice(BLOB);
    const fromDevice = Promise.withResolvers<void>();
    const fromDownload = Promise.withResolvers<void>();
    const underway = (): number => remote.calls.length;
    remote.gate = () => (underway() === 1 ? fromDevice : fromDownload).promise;
    const source = new SwitchedSource(remote, assert.fail);
    const place = { name: "held", blobSize: async () => BLOB.length, blobSource: async () => remote };
    const waiting = source.read(0, 1);
    const downloads = bench.start([{ ...layer, place, source }]);
    await remote.called(2);
    await sleep(50);
    const whileWaiting = underway();
    fromDevice.resolve();
    await waiting;
    await remote.called(3);
    fromDownload.resolve();
    assert.equal(whileWaiting, 2, "the device's, and one of the download's");
    await over(downloads, bench.notices);
    await isWhole({ ...layer, source }, BLOB);
    await source.close();
  });
});
