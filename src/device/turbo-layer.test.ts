import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Readable } from "node:stream";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { assertTree } from "../../test/support/recorded-tree.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import {
  BIG,
  BIG_CONTENT,
  BIG_INDEX,
  bigLayer,
  CHUNK_BYTES,
  CONTENT_AT,
  openCache,
  openLayers,
  PLAIN,
  plainLayer,
  refuses,
  VIRTUAL_SIZE,
  warpLayer,
  type Row,
} from "../../test/support/turbo-device.ts";
import {
  nativeLayer,
  recordedTurboLayers,
  spanDigests,
  turboLayer,
  WatchedPlace,
  type StoredLayer,
} from "../../test/support/turbo-image.ts";
import { MemorySink } from "../bytes/sink.ts";
import { decompress } from "../compression/decompress.ts";
import { LayerIndexer } from "../convert/layer-index.ts";
import { SECTOR_BYTES, TARGET_TAG } from "../formats/lsmt/layout.ts";
import { LsmtWriter } from "../formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import { OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD } from "../oci/media-types.ts";
import { openSyncReader } from "./cached-reader-worker.ts";

for (const [kind, trees] of [
  ["base", ["base-tree0", "base-tree1", "base-tree2"]],
  ["mkfs", ["stack-tree0", "stack-tree1", "stack-tree"]],
] as const) {
  for (const [upper, tree] of trees.entries()) {
    test(`the tree of a turboOCI image made by overlaybd is the one that the kernel shows: ${kind}, layer ${upper}`, async () => {
      await using directory = await TemporaryDirectory.create();
      const layers = recordedTurboLayers(kind).slice(0, upper + (kind === "base" ? 2 : 1));
      const place = new WatchedPlace(layers);
      const device = await openLayers(layers, upper === 2 ? { cache: await openCache(directory) } : {}, place);
      assert.equal(device.layerCount, layers.length);
      await assertTree(device, tree, { inodes: true });
      await device.close();
      assert.equal(place.open, 0);
    });
  }
}

/** SHA-256 of the first 64 MiB of devices that the kernel mounted, showing the trees that overlaybd's tools had listed. */
const EROFS_DEVICES = [
  "33b80f0b47919927af9d25aa21281eed120c8f5d0d71b197a165f5a044b65c1f",
  "89f0294436cfab3cbd343ecafa4b4b6820976b041f7f73895b20d89ce237de00",
  "f9f086bf286973b03881690859bd781db1674fe774c46fd5093b44d46cb94c28",
];

test("an EROFS image made by overlaybd is, byte for byte, the device that the kernel has mounted", async () => {
  const layers = recordedTurboLayers("erofs");
  for (const [upper, expected] of EROFS_DEVICES.entries()) {
    const device = await openLayers(layers.slice(0, upper + 1));
    const hash = createHash("sha256");
    for (let at = 0; at < 64 * 2 ** 20; at += 2 ** 22) hash.update(await device.read(at, 2 ** 22));
    assert.equal(hash.digest("hex"), expected);
    await device.close();
  }
});

test("an image reads the same whatever the cache does, and workers read what the device reads", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("base");
  const plain = await openLayers(layers);
  const device = await openLayers(layers, { cache: await openCache(directory) });
  const reader = openSyncReader(device.cachedReader!.data);
  let fromWorker = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(30 * 2 ** 20), fc.nat(200_000), async (offset, length) => {
      const expected = Buffer.from(await plain.read(offset, length));
      const target = new Uint8Array(length);
      if (reader.readCached(offset, target)) assert.ok(expected.equals(target));
      assert.ok(expected.equals(await device.read(offset, length)));
      await sleep(1);
      if (!reader.readCached(offset, target)) return;
      fromWorker++;
      assert.ok(expected.equals(target));
    }),
    { numRuns: 150 },
  );
  assert.ok(fromWorker > 20, `${fromWorker} reads`);
  await device.close();
  await plain.close();
});

test("workers read metadata at once, from memory", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs");
  const device = await openLayers(layers, { cache: await openCache(directory) });
  const target = new Uint8Array(1024);
  assert.equal(openSyncReader(structuredClone(device.cachedReader!.data)).readCached(1024, target), true);
  assert.deepEqual(await device.read(1024, 1024), Buffer.from(target));
  await device.close();
  const without = await openLayers(layers);
  assert.equal(openSyncReader(without.cachedReader!.data).readCached(1024, target), true, "metadata is in memory without a cache");
  assert.deepEqual(await without.read(1024, 1024), Buffer.from(target));
  await without.close();
});

test("a second device takes layer blobs and content from the cache", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = recordedTurboLayers("mkfs");
  const first = await openLayers(layers, { cache: await openCache(directory) });
  const blobs = layers.flatMap(({ blob, target }) => [blob, target!]);
  assert.equal(first.blobBytes, blobs.reduce((sum, { length }) => sum + length, 0)); // prettier-ignore
  const offset = 8 * 2 ** 20;
  const expected = await first.read(offset, 2 ** 20);
  assert.equal(first.fetched.requests > 6, true);
  await first.close();
  const place = new WatchedPlace(layers);
  const second = await openLayers(layers, { cache: await openCache(directory) }, place);
  assert.deepEqual(await second.read(offset, 2 ** 20), expected);
  assert.deepEqual(place.reads, []);
  assert.deepEqual(second.fetched, { requests: 3, bytes: 0 }, "only whether the layers' data is there was asked");
  await second.close();
});

test("a span is fetched and decoded once, however much is read of it, and by how many at a time", async () => {
  await using directory = await TemporaryDirectory.create();
  const layer = await bigLayer();
  for (const cache of [undefined, await openCache(directory)]) {
    const place = new WatchedPlace([layer]);
    const device = await openLayers([layer], { cache }, place);
    const offset = CONTENT_AT + BIG_INDEX.contentOffset(3) + 100_000;
    await Promise.all(Array.from({ length: 60 }, async (_, at) => await device.read(offset + at * 8192, 4096)));
    const { start, end } = BIG_INDEX.storedRange(3);
    assert.deepEqual(place.readsOf(layer.target), [[start, end - start]]);
    await device.close();
  }
});

test("with a cache, all of a span is kept when any of it is read", async () => {
  await using directory = await TemporaryDirectory.create();
  const layer = await bigLayer();
  const place = new WatchedPlace([layer]);
  const first = await openLayers([layer], { cache: await openCache(directory) }, place);
  const [start, end] = [BIG_INDEX.contentOffset(5), BIG_INDEX.contentOffset(6)];
  await first.read(CONTENT_AT + Math.floor((start + end) / 2), 1);
  await first.close();
  const before = place.readsOf(layer.target).length;
  const second = await openLayers([layer], { cache: await openCache(directory) }, place);
  // All but what shares a chunk with the neighbours.
  const [firstWhole, endWhole] = [Math.ceil(start / CHUNK_BYTES) * CHUNK_BYTES, Math.floor(end / CHUNK_BYTES) * CHUNK_BYTES];
  const read = await second.read(CONTENT_AT + firstWhole, endWhole - firstWhole);
  assert.ok(BIG_CONTENT.subarray(firstWhole, endWhole).equals(read));
  assert.equal(place.readsOf(layer.target).length, before);
  await second.close();
});

test("reading from front to back fetches nothing twice", async () => {
  await using directory = await TemporaryDirectory.create();
  const layer = await bigLayer();
  const place = new WatchedPlace([layer]);
  const device = await openLayers([layer], { cache: await openCache(directory) }, place);
  for (let at = 0; at < BIG_CONTENT.length; at += 128 * 1024) {
    const length = Math.min(128 * 1024, BIG_CONTENT.length - at);
    assert.ok(BIG_CONTENT.subarray(at, at + length).equals(await device.read(CONTENT_AT + at, length)));
  }
  const bytes = place.readsOf(layer.target).reduce((sum, [, length]) => sum + length, 0);
  assert.ok(bytes < layer.target.length + 64 * BIG_INDEX.spanCount, `${bytes} bytes fetched of ${layer.target.length}`);
  await device.close();
});

test("a damaged chunk of the cache is dropped and decoded anew", async () => {
  await using directory = await TemporaryDirectory.create();
  const layer = await bigLayer();
  const warm = await openLayers([layer], { cache: await openCache(directory) });
  await warm.read(CONTENT_AT, 3 * 2 ** 20);
  await warm.close();
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.nat(), async (file, position) => {
      const names = readdirSync(directory.path).toSorted();
      const path = directory.join(names[file % names.length]);
      const bytes = readFileSync(path);
      bytes[position % bytes.length] ^= 4;
      writeFileSync(path, bytes);
      const device = await openLayers([layer], { cache: await openCache(directory) });
      const reader = openSyncReader(device.cachedReader!.data);
      for (const at of [0, 1_000_000, 2_500_000]) {
        const expected = BIG_CONTENT.subarray(at, at + 200_000);
        const target = new Uint8Array(200_000);
        if (reader.readCached(CONTENT_AT + at, target)) assert.ok(expected.equals(target));
        assert.ok(expected.equals(await device.read(CONTENT_AT + at, 200_000)));
      }
      await device.close();
    }),
    { numRuns: 8 },
  );
});

test("content in the cache belongs to the index and the digests that it was decoded with", async () => {
  await using directory = await TemporaryDirectory.create();
  const layers = [await bigLayer(), await bigLayer({ members: (usual) => usual.filter(({ name }) => name !== "spans.sha256") })];
  const names: string[][] = [];
  for (const layer of layers) {
    const device = await openLayers([layer], { cache: await openCache(directory) });
    await device.read(CONTENT_AT, 1);
    await device.close();
    names.push(readdirSync(directory.path));
  }
  assert.equal(names[0].length, 2, "of the layer blob and of the content");
  assert.equal(names[1].length, 4);
});

test("a target that is no compressed tar is read as it is, its digests telling its size, or the place", async () => {
  await using directory = await TemporaryDirectory.create();
  for (const cache of [undefined, await openCache(directory)]) {
    const layer = await plainLayer([{ name: "spans.sha256", data: spanDigests(PLAIN) }]);
    const device = await openLayers([layer], { cache });
    assert.ok(PLAIN.equals(await device.read(CONTENT_AT, PLAIN.length)));
    await device.close();
  }
  const bare = await plainLayer([]);
  const device = await openLayers([bare], {});
  assert.ok(PLAIN.subarray(1_048_000, 1_049_000).equals(await device.read(CONTENT_AT + 1_048_000, 1000)));
  await device.close();
  const { descriptor, blob } = bare;
  await refuses([bare], { code: "NOT_FOUND", message: /--data-repository/ }, new WatchedPlace([{ descriptor, blob }]));
});

const SHORT = BIG_CONTENT.subarray(0, 6_000_128); // whole sectors
const PARTS = [0, 1, 2, 3, 4, 5].map((part) => SHORT.subarray(part * 1_000_000, part === 5 ? undefined : (part + 1) * 1_000_000));

for (const [what, target, mediaType] of [
  ["gzip", gzipSync(SHORT), OCI_LAYER_GZIP],
  ["gzip of many members", Buffer.concat(PARTS.map((part) => gzipSync(part))), OCI_LAYER_GZIP],
  ["gzip of stored blocks", gzipSync(SHORT, { level: 0 }), OCI_LAYER_GZIP],
  ["zstd of many frames", Buffer.concat(PARTS.map((part) => zstdCompressSync(part))), OCI_LAYER_ZSTD],
  ["no compression", SHORT, OCI_LAYER_TAR],
] as const) {
  test(`a layer that was indexed while it was converted is read as its content: ${what}`, async () => {
    await using directory = await TemporaryDirectory.create();
    const indexer = new LayerIndexer();
    const { stream } = await decompress(Readable.from([target]), what, indexer.observer);
    for await (const bytes of stream) indexer.content(bytes);
    const { file, spans } = await indexer.finish();
    const rows: Row[] = [[0, 8, 8], [8, SHORT.length / SECTOR_BYTES, 0, TARGET_TAG]]; // prettier-ignore
    const metadata = { name: "ext4.fs.meta", data: await warpLayer(rows, Buffer.alloc(CONTENT_AT, "metadata"), SHORT.length) };
    const members = [metadata, ...(file ? [{ name: file.name, data: file.bytes }] : []), { name: "spans.sha256", data: spans }];
    const layer = turboLayer({ members, target, targetMediaType: mediaType });
    const devices = [await openLayers([layer]), await openLayers([layer], { cache: await openCache(directory) })];
    await fc.assert(
      fc.asyncProperty(fc.nat(SHORT.length), fc.nat(300_000), async (offset, wanted) => {
        const length = Math.min(wanted, SHORT.length - offset);
        for (const device of devices)
          assert.ok(SHORT.subarray(offset, offset + length).equals(await device.read(CONTENT_AT + offset, length)));
      }),
      { numRuns: 30 },
    );
    for (const device of devices) await device.close();
  });
}

test("an image may have a layer twice, and layers without anything", async () => {
  await using directory = await TemporaryDirectory.create();
  const big = await bigLayer();
  const nothing = { name: "ext4.fs.meta", data: await warpLayer([], new Uint8Array(0), 0) };
  const digests = { name: "spans.sha256", data: spanDigests(new Uint8Array(0)) };
  const empty = turboLayer({ members: [nothing, digests], target: new Uint8Array(0), targetMediaType: OCI_LAYER_TAR });
  const layers = [big, empty, big, empty];
  for (const cache of [undefined, await openCache(directory), await openCache(directory)]) {
    const device = await openLayers(layers, { cache });
    const reads = Array.from({ length: 8 }, async (_, at) => await device.read(CONTENT_AT + at * 2_000_000, 1_000_000));
    for (const [at, bytes] of (await Promise.all(reads)).entries()) {
      assert.ok(BIG_CONTENT.subarray(at * 2_000_000, at * 2_000_000 + 1_000_000).equals(bytes));
    }
    await device.close();
  }
});

test("random chains of both kinds of layers read what a plain device of bytes says, with a cache and without", async () => {
  const anyRow = fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 3000 }), fc.nat(), fc.boolean());
  const anyLayer = fc.record({ rows: fc.array(anyRow, { maxLength: 8 }), isTurbo: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(anyLayer, { minLength: 1, maxLength: 4 }), async (plans) => {
      await using directory = await TemporaryDirectory.create();
      const model = Buffer.alloc(VIRTUAL_SIZE);
      const layers: StoredLayer[] = [];
      for (const [n, { rows, isTurbo }] of plans.entries()) layers.push(await randomLayer(n, rows, isTurbo, model));
      for (const cache of [undefined, await openCache(directory)]) {
        const device = await openLayers(layers, { cache });
        assert.ok(model.subarray(0, 7000 * 512).equals(await device.read(0, 7000 * 512)));
        assert.ok(model.subarray(-4096).equals(await device.read(VIRTUAL_SIZE - 4096, 4096)));
        await device.close();
      }
    }),
    { numRuns: 12 },
  );
});

async function randomLayer(
  number: number,
  wanted: readonly [number, number, number, boolean][],
  isTurbo: boolean,
  model: Buffer,
): Promise<StoredLayer> {
  const own = Buffer.alloc(3000 * SECTOR_BYTES);
  for (let i = 0; i < 3000; i++) own.write(`layer ${number}, sector ${i}`, i * SECTOR_BYTES);
  const rows: Row[] = [[VIRTUAL_SIZE / SECTOR_BYTES - 1, 1, 8]];
  own.copy(model, VIRTUAL_SIZE - SECTOR_BYTES, 0, SECTOR_BYTES);
  let settled = 0;
  for (const [gap, sectors, random, isRemote] of wanted) {
    const data = isTurbo && isRemote ? BIG_CONTENT : own;
    const from = random % (data.length / SECTOR_BYTES - sectors + 1);
    rows.push([settled + gap, sectors, data === own ? 8 + from : from, data === own ? 0 : TARGET_TAG]);
    data.copy(model, (settled + gap) * SECTOR_BYTES, from * SECTOR_BYTES, (from + sectors) * SECTOR_BYTES);
    settled += gap + sectors;
  }
  if (isTurbo) {
    const data = await warpLayer(rows, own, BIG_CONTENT.length);
    return turboLayer({
      members: [
        { name: "ext4.fs.meta", data },
        { name: "gzip.meta", data: BIG[1] },
      ],
      target: BIG[0],
    });
  }
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: VIRTUAL_SIZE });
  await writer.append(own);
  const list = new MappingList();
  for (const [first, sectors, mapped] of rows) list.add(first, sectors, mapped);
  await writer.close(list);
  return nativeLayer(sink.bytes());
}
