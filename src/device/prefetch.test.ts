import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { load } from "../../test/support/recorded-tree.ts";
import { tarArchive } from "../../test/support/tar-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { manifestOf, openCache } from "../../test/support/turbo-device.ts";
import { nativeLayer, recordedTurboLayers, WatchedPlace, type StoredLayer } from "../../test/support/turbo-image.ts";
import { LazyError } from "../errors.ts";
import { TARGET_LAYERS, type TraceRecord } from "../formats/trace/layout.ts";
import type { PrefetchFile } from "../formats/trace/prefetch-file.ts";
import { parsePrefetchList } from "../formats/trace/prefetch-list.ts";
import { TraceRecorder } from "../formats/trace/trace-recorder.ts";
import { encodeTrace } from "../formats/trace/trace-writer.ts";
import { digestOf } from "../oci/digest.ts";
import { lookupPath, type FilesystemReader } from "../tree/filesystem-reader.ts";
import type { Device } from "./device.ts";
import { openDevice } from "./open-device.ts";
import { openFilesystem } from "./open-filesystem.ts";
import { readAcceleration } from "./prefetch-acceleration.ts";
import { ProgramReads } from "./prefetch-reads.ts";
import { DEFAULT_READERS, Prefetch, type PrefetchOptions } from "./prefetch.ts";

const nativeLayers = (): StoredLayer[] => [0, 1, 2].map((layer) => nativeLayer(load(`overlaybd/stack-layer${layer}.commit.zst`)));

const IMAGES: readonly (readonly [kind: string, layers: () => StoredLayer[]])[] = [
  ["overlaybd", nativeLayers],
  ["turboOCI", () => recordedTurboLayers("mkfs", { withDigests: true })],
  ["EROFS in turboOCI", () => recordedTurboLayers("erofs")],
];

const quiet = { idle: async () => {}, onFailure: (error: unknown) => assert.fail(String(error)) } satisfies PrefetchOptions;

/** Opens an image with an empty cache. */
async function open(directory: TemporaryDirectory, layers: readonly StoredLayer[], place = new WatchedPlace(layers)): Promise<Device> {
  return await openDevice(place, manifestOf(layers), { cache: await openCache(directory) });
}

/** Reads every other file of an image, whole, and returns their paths. */
async function runProgram(reads: ProgramReads): Promise<string[]> {
  const filesystem = await openFilesystem(reads);
  const paths = (await allFiles(filesystem, filesystem.root, "")).filter((_, index) => index % 2 === 0);
  for (const path of paths) {
    const file = await filesystem.file(await lookupPath(filesystem, path));
    await file.read(0, file.size);
  }
  return paths;
}

async function allFiles(filesystem: FilesystemReader, directory: number, above: string): Promise<string[]> {
  const found: string[] = [];
  for (const { name, inode } of await filesystem.list(directory)) {
    const path = `${above}/${name}`;
    const { type } = await filesystem.inode(inode);
    if (type === "directory") found.push(...(await allFiles(filesystem, inode, path)));
    else if (type === "file") found.push(path);
  }
  return found;
}

async function recorded(layers: readonly StoredLayer[]): Promise<readonly TraceRecord[]> {
  await using directory = await TemporaryDirectory.create();
  const recorder = new TraceRecorder();
  const place = new WatchedPlace(layers);
  const reads = new ProgramReads(await open(directory, layers, place));
  reads.record(recorder);
  const before = place.reads.length;
  await runProgram(reads);
  assert.ok(place.reads.length > before, "without a replay it takes requests");
  await reads.close();
  return recorder.records;
}

for (const [kind, build] of IMAGES) {
  test(`after a replay, what was recorded is read without a request: ${kind}`, async () => {
    await using directory = await TemporaryDirectory.create();
    const layers = build();
    const records = await recorded(layers);
    assert.equal(
      records.some(({ layer }) => layer >= TARGET_LAYERS),
      kind !== "overlaybd",
    );
    const place = new WatchedPlace(layers);
    const device = await open(directory, layers, place);
    const reads = new ProgramReads(device);
    const prefetch = new Prefetch(device, { kind: "trace", records }, quiet);
    await prefetch.ended;
    assert.deepEqual(prefetch.counts, {
      pieces: records.length,
      bytes: records.reduce((sum, { length }) => sum + length, 0),
      failed: 0,
      ended: true,
    });
    const before = place.reads.length;
    await runProgram(reads);
    assert.deepEqual(place.reads.slice(before), []);
    await reads.close();
    assert.equal(place.open, 0);
  });

  test(`after a list was fetched, its files are read without a request: ${kind}`, async () => {
    await using directory = await TemporaryDirectory.create();
    const layers = build();
    const place = new WatchedPlace(layers);
    const device = await open(directory, layers, place);
    const filesystem = await openFilesystem(device);
    const all = await allFiles(filesystem, filesystem.root, "");
    const paths = parsePrefetchList(Buffer.from("/\n", "latin1"), "list");
    const prefetch = new Prefetch(device, { kind: "list", paths }, quiet);
    await prefetch.ended;
    assert.ok(prefetch.counts.pieces > 0);
    const before = place.reads.length;
    for (const path of all) {
      const file = await filesystem.file(await lookupPath(filesystem, path));
      await file.read(0, file.size);
    }
    assert.deepEqual(place.reads.slice(before), []);
    await device.close();
  });
}

test("first accesses are fetched first", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs", { withDigests: true });
  const records = (await recorded(layers)).filter(({ layer }) => layer >= TARGET_LAYERS).toReversed();
  const place = new WatchedPlace(layers);
  const device = await open(directory, layers, place);
  const before = place.reads.length;
  await new Prefetch(device, { kind: "trace", records }, { ...quiet, readers: 1 }).ended;
  const order = place.reads.slice(before).map(({ digest }) => digest);
  const layerOf = ({ layer }: TraceRecord) => digestOf(layers[layer - TARGET_LAYERS].target!);
  assert.deepEqual([...new Set(order)], [...new Set(records.map(layerOf))]);
  await device.close();
});

test("records of what the image does not have are passed over, and those that reach too far are cut", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = nativeLayers();
  const device = await open(directory, layers);
  const [{ size }] = device.layers[0].files;
  const records: TraceRecord[] = [
    { op: "read", layer: 3, offset: 0, length: 4096 },
    { op: "read", layer: TARGET_LAYERS, offset: 0, length: 4096 },
    { op: "write", layer: 0, offset: 0, length: 4096 },
    { op: "read", layer: 0, offset: size, length: 4096 },
    { op: "read", layer: 0, offset: 2 ** 50, length: 2 ** 50 },
    { op: "read", layer: 0, offset: size - 10, length: 2 ** 50 },
    { op: "read", layer: 0, offset: 0, length: 0 },
  ];
  const prefetch = new Prefetch(device, { kind: "trace", records }, quiet);
  await prefetch.ended;
  assert.deepEqual(prefetch.counts, { pieces: 1, bytes: 10, failed: 0, ended: true });
  await device.close();
});

test("no more is fetched than the cache can be expected to keep", async () => {
  await using directory = await TemporaryDirectory.create();
  const device = await open(directory, nativeLayers());
  const records = Array.from({ length: 10 }, (_, index): TraceRecord => ({ op: "read", layer: 0, offset: index * 100, length: 100 }));
  const prefetch = new Prefetch(device, { kind: "trace", records }, { ...quiet, maxBytes: 350 });
  await prefetch.ended;
  assert.deepEqual(prefetch.counts, { pieces: 3, bytes: 300, failed: 0, ended: true });
  await device.close();
});

test("what a list names and the image does not have is said, and the rest is fetched", async () => {
  await using directory = await TemporaryDirectory.create();
  const device = await open(directory, nativeLayers());
  const filesystem = await openFilesystem(device);
  const [file] = await allFiles(filesystem, filesystem.root, "");
  const failures: string[] = [];
  const missing = Array.from({ length: 40 }, (_, index) => `missing${index}`);
  const paths = parsePrefetchList(Buffer.from([...missing, `${file}/`, "/", ".", file].join("\n"), "latin1"), "list");
  const options = { ...quiet, onFailure: (error: unknown) => failures.push(error instanceof LazyError ? error.message : "") };
  const prefetch = new Prefetch(device, { kind: "list", paths }, options);
  await prefetch.ended;
  assert.equal(failures.length, 42);
  assert.match(failures[0], /^line 1: "missing0": .*there is no "missing0"$/);
  assert.match(failures[40], /^line 41: .* is no directory, but a file$/);
  assert.match(failures[41], /^line 43: "": is no file, but a directory; directories end with a slash$/);
  assert.ok(prefetch.counts.pieces > 0);
  await device.close();
});

/** Turbo layers whose data comes when `release` is called; `waiting` counts who waits for it. */
function stalled(layers: readonly StoredLayer[]) {
  const place = new WatchedPlace(layers);
  const targets = new Set(layers.map(({ target }) => digestOf(target!)));
  const gate = Promise.withResolvers<void>();
  const state = { waiting: 0, release: gate.resolve };
  const inner = place.blobSource.bind(place);
  place.blobSource = async (descriptor) => {
    const source = await inner(descriptor);
    if (!targets.has(descriptor.digest)) return source;
    return {
      ...source,
      read: async (offset, length) => {
        state.waiting++;
        await gate.promise;
        return await source.read(offset, length);
      },
    };
  };
  return { place, state };
}

/** Records that are each a span of their own. */
async function scattered(layers: readonly StoredLayer[]): Promise<{ place: WatchedPlace; records: TraceRecord[] }> {
  await using directory = await TemporaryDirectory.create();
  const place = new WatchedPlace(layers);
  const device = await open(directory, layers, place);
  const records = device.layers.flatMap(({ files: [, target] }, layer) =>
    Array.from({ length: Math.ceil(target.size / 65536) }, (_, index): TraceRecord => {
      return { op: "read", layer: layer + TARGET_LAYERS, offset: index * 65536, length: 512 };
    }),
  );
  await device.close();
  return { place, records };
}

test("a quarter of the readers goes on while a read waits, and all of them when none does", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs");
  const { records } = await scattered(layers);
  const device = await open(directory, layers);
  const begun: number[] = [];
  const held = Promise.withResolvers<void>();
  device.fetch = async (_, offset) => {
    begun.push(offset);
    await held.promise;
  };
  const idle = Promise.withResolvers<void>();
  const prefetch = new Prefetch(device, { kind: "trace", records }, { ...quiet, idle: async () => await idle.promise });
  await setImmediate();
  assert.equal(begun.length, DEFAULT_READERS / 4);
  idle.resolve();
  await setImmediate();
  assert.equal(begun.length, Math.min(DEFAULT_READERS, records.length));
  held.resolve();
  await prefetch.ended;
  assert.equal(begun.length, records.length);
  await device.close();
});

test("a device's reads are waited for until the last of them has its answer", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs");
  const { place, state } = stalled(layers);
  const device = await open(directory, layers, place);
  const reads = new ProgramReads(device);
  await reads.idle();
  const target = device.segments.tag.findIndex((tag) => tag % 2 === 1);
  const reading = reads.read(device.segments.firstSector[target] * 512, 512);
  const events: string[] = [];
  const idle = Promise.all([reads.idle(), reads.idle()]).then(() => events.push("idle"));
  await setImmediate();
  assert.equal(events.length, 0);
  state.release();
  await Promise.all([reading.then(() => events.push("read")), idle]);
  assert.deepEqual(events.toSorted(), ["idle", "read"]);
  await reads.close();
});

test("a stopped replay begins nothing more, and says nothing of what fails then", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs");
  const { records } = await scattered(layers);
  const { place, state } = stalled(layers);
  const device = await open(directory, layers, place);
  const prefetch = new Prefetch(device, { kind: "trace", records }, { ...quiet, readers: 2 });
  while (state.waiting === 0) await sleep(1);
  prefetch.stop();
  place.spoil = (bytes) => bytes.fill(0);
  state.release();
  await prefetch.ended;
  assert.ok(prefetch.counts.pieces <= 2, String(prefetch.counts.pieces));
  assert.equal(prefetch.counts.failed, 0);
  await device.close();
});

test("a place that answers no more is left alone after some failures in a row", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs");
  const device = await open(directory, layers);
  const records = Array.from({ length: 1000 }, (_, index): TraceRecord => ({ op: "read", layer: 0, offset: index, length: 1 }));
  device.fetch = async () => await Promise.reject(new LazyError("UNAVAILABLE", "gone"));
  const failures: unknown[] = [];
  const prefetch = new Prefetch(device, { kind: "trace", records }, { ...quiet, readers: 1, onFailure: (error) => failures.push(error) });
  await prefetch.ended;
  assert.equal(failures.length, 32);
  await device.close();
});

test("damage on the way is not kept: it is fetched once more", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = nativeLayers();
  const records = await recorded(layers);
  const place = new WatchedPlace(layers);
  const device = await open(directory, layers, place);
  let spoiled = 0;
  place.spoil = (bytes) => {
    if (spoiled++ === 0) bytes.fill(0xee, 0, Math.min(bytes.length, 4096));
  };
  const prefetch = new Prefetch(device, { kind: "trace", records }, { ...quiet, readers: 1 });
  await prefetch.ended;
  assert.ok(spoiled > 1);
  assert.equal(prefetch.counts.pieces, records.length);
  place.spoil = () => {};
  await runProgram(new ProgramReads(device));
  await device.close();
});

/** A layer with this file named `trace`. */
function accelerationLayer(trace: Uint8Array | undefined, pack = (tar: Uint8Array): Uint8Array => tar): StoredLayer {
  const blob = pack(tarArchive([{ name: "other", data: "x" }, ...(trace === undefined ? [] : [{ name: "trace", data: trace }])]));
  const annotations = {
    "containerd.io/snapshot/overlaybd/version": "0.1.0",
    "containerd.io/snapshot/overlaybd/acceleration-layer": "yes",
  };
  return {
    blob,
    descriptor: { mediaType: "application/vnd.oci.image.layer.v1.tar", digest: digestOf(blob), size: blob.length, annotations },
  };
}

test("an acceleration layer is no part of the device, and says what to fetch ahead", async () => {
  await using directory = await TemporaryDirectory.create();
  const records: TraceRecord[] = [{ op: "read", layer: 0, offset: 4096, length: 512 }];
  for (const pack of [undefined, (tar: Uint8Array) => gzipSync(tar)]) {
    const layers = [...nativeLayers(), accelerationLayer(encodeTrace(records), pack)];
    const place = new WatchedPlace(layers);
    const device = await open(directory, layers, place);
    assert.equal(device.layerCount, 3);
    assert.equal(device.acceleration?.digest, layers[3].descriptor.digest);
    const expected: PrefetchFile = { kind: "trace", records };
    assert.deepEqual(await readAcceleration(layers[3].descriptor, place), expected);
    await device.close();
    assert.equal(place.open, 0);
  }
});

test("an acceleration layer without a trace wants nothing, one that is wrong is refused", async () => {
  for (const trace of [undefined, new Uint8Array(0)]) {
    const layer = accelerationLayer(trace);
    assert.equal(await readAcceleration(layer.descriptor, new WatchedPlace([layer])), undefined);
  }
  const layer = accelerationLayer(encodeTrace([]).fill(1, 8, 9));
  const place = new WatchedPlace([layer]);
  await assert.rejects(readAcceleration(layer.descriptor, place), {
    code: "CORRUPT",
    message: /: trace: a trace of 24 bytes, its header says/,
  });
  place.spoil = (bytes) => bytes.fill(0);
  await assert.rejects(readAcceleration(layer.descriptor, place), { code: "CORRUPT", message: /content has digest sha256:/ });
  assert.equal(place.open, 0);
  const huge = { ...layer.descriptor, size: 2 ** 40 };
  await assert.rejects(readAcceleration(huge, place), { code: "UNSUPPORTED", message: /1099511627776 bytes, expected at most/ });
});

test("an image of an acceleration layer alone has no device", async () => {
  const layer = accelerationLayer(undefined);
  await assert.rejects(openDevice(new WatchedPlace([layer]), manifestOf([layer])), {
    code: "UNSUPPORTED",
    message: /the image has no layers/,
  });
});
