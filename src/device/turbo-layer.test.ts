import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { assertTree, load } from "../../test/support/recorded-tree.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import type { TarMember } from "../../test/support/tar-builder.ts";
import { nativeLayer, recordedTarget, recordedTurboLayers, spanDigests, turboLayer, WatchedPlace, type StoredLayer } from "../../test/support/turbo-image.ts"; // prettier-ignore
import { MemorySink } from "../bytes/sink.ts";
import { BlockCache } from "../cache/block-cache.ts";
import { compressInline } from "../compression/block-codec.ts";
import { LazyError } from "../errors.ts";
import { parseGzipIndex } from "../formats/gzip-index/gzip-index-reader.ts";
import { SECTOR_BYTES, TARGET_TAG } from "../formats/lsmt/layout.ts";
import { LsmtWriter } from "../formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import { ZFileWriter } from "../formats/zfile/zfile-writer.ts";
import { digestOf } from "../oci/digest.ts";
import { OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD } from "../oci/media-types.ts";
import { openSyncReader } from "./cached-reader-worker.ts";
import { openDevice, type Device, type OpenDeviceOptions } from "./device.ts";

const CHUNK_BYTES = 64 * 1024;
const VIRTUAL_SIZE = 32 * 2 ** 20;
const PREFIX = "containerd.io/snapshot/overlaybd/";

async function openCache(directory: TemporaryDirectory): Promise<BlockCache> {
  return await BlockCache.open(directory.path, { capacityBytes: 2 ** 30, chunkBytes: CHUNK_BYTES });
}

const manifestOf = (layers: readonly StoredLayer[]) => ({ layers: layers.map(({ descriptor }) => descriptor) });

async function openLayers(
  layers: readonly StoredLayer[],
  options: OpenDeviceOptions = {},
  place = new WatchedPlace(layers),
): Promise<Device> {
  return await openDevice(place, manifestOf(layers), options);
}

/** Opening these layers fails like that, leaves nothing open, and fails again with a cache. */
async function refuses(
  layers: readonly StoredLayer[],
  expected: { code: string; message: RegExp },
  place = new WatchedPlace(layers),
): Promise<void> {
  await using directory = await TemporaryDirectory.create();
  for (const cache of [undefined, await openCache(directory)]) {
    await assert.rejects(openLayers(layers, { cache }, place), expected);
    assert.equal(place.open, 0, "everything is closed");
  }
}

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
  assert.equal(without.cachedReader, undefined);
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

const BIG = recordedTarget(0);
const BIG_INDEX = parseGzipIndex(BIG[1], "index");
const BIG_CONTENT = gunzipSync(BIG[0]);

type Row = readonly [firstSector: number, sectors: number, mapped: number, tag?: number];

/** A warp layer, as convert makes it: metadata in its own file, all else in a target of that size. */
async function warpLayer(rows: readonly Row[], metadata: Uint8Array, targetBytes: number): Promise<Uint8Array> {
  const sink = new MemorySink();
  const zfile = new ZFileWriter(sink, { algorithm: "lz4", compress: compressInline, overwriteHeader: true });
  const writer = new LsmtWriter(zfile, { virtualSize: VIRTUAL_SIZE });
  await writer.append(metadata);
  const list = new MappingList();
  for (const [first, sectors, mapped, tag] of rows) list.add(first, sectors, mapped, false, tag);
  await writer.closeWarp(list, targetBytes);
  const { header } = await zfile.close();
  const bytes = sink.bytes();
  bytes.set(header, 0);
  return bytes;
}

const METADATA = Buffer.alloc(8 * SECTOR_BYTES, "metadata ");
/** Metadata in the first sectors, then the whole target. */
const WHOLE: readonly Row[] = [
  [0, 8, 8],
  [8, BIG_CONTENT.length / SECTOR_BYTES, 0, TARGET_TAG],
];

interface Parts {
  readonly members?: (usual: TarMember[]) => TarMember[];
  readonly digests?: Uint8Array;
  readonly rows?: readonly Row[];
}

/** A layer that shows all of the big target's content behind its metadata. */
async function bigLayer({ members = (usual) => usual, digests = spanDigests(BIG_CONTENT, BIG_INDEX), rows = WHOLE }: Parts = {}): Promise<
  Required<StoredLayer>
> {
  const metadata = await warpLayer(rows, METADATA, BIG_CONTENT.length);
  const usual = [
    { name: "erofs.fs.meta", data: metadata },
    { name: ".turbo.ociv1" },
    { name: "gzip.meta", data: BIG[1] },
    { name: "spans.sha256", data: digests },
    { name: "what.else", data: "unknown members are passed over" },
  ];
  return turboLayer({ members: members(usual), target: BIG[0] });
}

const CONTENT_AT = 8 * SECTOR_BYTES;

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

for (const isOld of [false, true]) {
  test(`a layer is known by its annotations${isOld ? ", the older ones too" : ""}`, async () => {
    const layer = await bigLayer();
    const group = isOld ? "fastoci" : "turbo-oci";
    const version = { [`${PREFIX}version`]: isOld ? "0.1.0-fastoci" : "0.1.0-turbo.ociv1" };
    const annotated = (annotations: Record<string, string>): StoredLayer => ({
      ...layer,
      descriptor: { ...layer.descriptor, annotations: { ...version, ...annotations } },
    });
    const named = { [`${PREFIX}${group}/target-digest`]: digestOf(layer.target) };
    const device = await openLayers([annotated(named)]);
    assert.equal(device.size, VIRTUAL_SIZE);
    await device.close();
    await refuses([annotated({})], { code: "CORRUPT", message: /^layer sha256:.*no annotation .*turbo-oci\/target-digest/ });
    await refuses([annotated({ [`${PREFIX}${group}/target-digest`]: "sha256:12" })], { code: "CORRUPT", message: /digest is "sha256:12"/ });
  });
}

test("a warp layer that is declared to be overlaybd is refused, as is a turboOCI blob", async () => {
  const metadata = load("turbo-oci/mkfs-layer0.fs.meta");
  await refuses([nativeLayer(metadata)], { code: "UNSUPPORTED", message: /metadata of a turboOCI layer/ });
  await refuses([nativeLayer((await bigLayer()).blob)], { code: "CORRUPT", message: /expected a ZFile or an LSMT layer/ });
});

test("the data may be in another place", async () => {
  const layer = await bigLayer();
  const [layers, data] = [new WatchedPlace([], "layers"), new WatchedPlace([], "data")];
  layers.add(layer.blob);
  await assert.rejects(openDevice(layers, manifestOf([layer])), {
    code: "NOT_FOUND",
    message: new RegExp(
      `^layers: blob ${layer.descriptor.digest}: its data is in blob ${digestOf(layer.target)}.*layers does not have.*--data-repository`,
    ),
  });
  data.add(layer.target);
  const device = await openDevice(layers, manifestOf([layer]), { dataPlace: data });
  assert.ok(BIG_CONTENT.subarray(0, 1000).equals(await device.read(CONTENT_AT, 1000)));
  await device.close();
  assert.deepEqual([layers.open, data.open], [0, 0]);
});

test("a target of another size than the index says is refused", async () => {
  const layer = await bigLayer();
  const place = new WatchedPlace([layer]);
  place.blobs.set(digestOf(layer.target), layer.target.subarray(1));
  await refuses([layer], { code: "CORRUPT", message: /which the layer says has 1863353 bytes; in place it has another size/ }, place);
});

test("a layer blob that is wrong is fetched once more, then refused", async () => {
  await using directory = await TemporaryDirectory.create();
  const layer = await bigLayer();
  for (const cache of [undefined, await openCache(directory)]) {
    const place = new WatchedPlace([layer]);
    let wrong = 1;
    place.spoil = (bytes, digest) => {
      if (digest === layer.descriptor.digest && wrong-- > 0) bytes[5000] ^= 1;
    };
    const device = await openLayers([layer], { cache }, place);
    assert.equal(place.readsOf(layer.blob).length, 2);
    await device.close();
  }
  const place = new WatchedPlace([layer]);
  place.spoil = (bytes, digest) => {
    if (digest === layer.descriptor.digest) bytes[5000] ^= 1;
  };
  await assert.rejects(openLayers([layer], {}, place), { code: "CORRUPT", message: /content has digest sha256:\w+, expected sha256:/ });
  assert.equal(place.reads.length, 2);
});

const withoutMember = (name: string) => (usual: TarMember[]) => usual.filter((member) => member.name !== name);

test("a layer blob without what it needs is refused with its name", async () => {
  const refusals: [(usual: TarMember[]) => TarMember[], RegExp][] = [
    [withoutMember("erofs.fs.meta"), /blob sha256:\w+: a turboOCI layer without ext4.fs.meta or erofs.fs.meta; it has ".turbo.ociv1", /],
    [() => [], /it has nothing/],
    [withoutMember("gzip.meta"), /is in blob sha256:\w+ of type application.*gzip, but it has no gzip.meta/],
    [(usual) => [...usual, { name: "ext4.fs.meta" }], /ext4.fs.meta: the layer has that twice/],
    [(usual) => [...usual, { name: "zstd.meta" }], /both gzip.meta and zstd.meta/],
    [(usual) => [{ name: "erofs.fs.meta", type: "symlink", link: "x" }, ...usual], /erofs.fs.meta: is not a plain file/],
    [(usual) => usual.map((member) => (member.name === "erofs.fs.meta" ? { ...member, data: "short" } : member)), /erofs.fs.meta: lsmt layer of 5 bytes/],
    [(usual) => usual.map((member) => (member.name === "gzip.meta" ? { ...member, data: "short" } : member)), /gzip.meta: .*gzip index/],
    [(usual) => usual.map((member) => (member.name === "spans.sha256" ? { ...member, data: "short" } : member)), /spans.sha256: .*span digests/],
  ]; // prettier-ignore
  for (const [members, message] of refusals) await refuses([await bigLayer({ members })], { code: "CORRUPT", message });
  const garbage = nativeLayer(Buffer.from("no gzip"));
  const { annotations } = (await bigLayer()).descriptor;
  await refuses([{ ...garbage, descriptor: { ...garbage.descriptor, annotations: annotations! } }], { code: "CORRUPT", message: /tar/ });
});

test("what would not fit into memory is refused", async () => {
  const layer = await bigLayer();
  const huge = { ...layer, descriptor: { ...layer.descriptor, size: 2 ** 30 } };
  await refuses([huge], { code: "UNSUPPORTED", message: /a turboOCI layer of 1073741824 bytes/ });
  const claimed = (usual: TarMember[]): TarMember[] => usual.map((member) => ({ ...member, raw: { size: "77777777777" } }));
  await refuses([await bigLayer({ members: claimed })], { code: "UNSUPPORTED", message: /8589934591 bytes of erofs.fs.meta/ });
  const zeros = gzipSync(Buffer.alloc(10 * 2 ** 20));
  const bomb = Buffer.concat([gzipSync(gunzipSync(layer.blob)), ...Array.from({ length: 52 }, () => zeros)]);
  const { descriptor } = nativeLayer(bomb);
  const bombed = { descriptor: { ...descriptor, annotations: layer.descriptor.annotations! }, blob: bomb, target: layer.target };
  await assert.rejects(openLayers([bombed]), { code: "UNSUPPORTED", message: /more than \d+ bytes unpacked/ });
});

test("a mapping beyond the target is refused with layer and offset", async () => {
  const rows: Row[] = [[0, 8, 8], [8, 10, BIG_CONTENT.length / SECTOR_BYTES - 5, TARGET_TAG]]; // prettier-ignore
  const metadata = await warpLayer(rows, METADATA, BIG_CONTENT.length + 10 * SECTOR_BYTES);
  const members = [
    { name: "ext4.fs.meta", data: metadata },
    { name: "gzip.meta", data: BIG[1] },
  ];
  const message =
    /blob sha256:\w+: ext4.fs.meta: lsmt index at 8192: segment 1 \(sectors 8 \+ 10\) maps to \[46135, 46145\) of .*, which has 46140 sectors/;
  await refuses([turboLayer({ members, target: BIG[0] })], { code: "CORRUPT", message });
});

for (const cached of [false, true]) {
  test(`a target that was wrong once is asked again, one that stays wrong gives an error, never wrong bytes ${cached ? "(cache)" : "(no cache)"}`, async () => {
    await using directory = await TemporaryDirectory.create();
    const layer = await bigLayer();
    const place = new WatchedPlace([layer]);
    const device = await openLayers([layer], cached ? { cache: await openCache(directory) } : {}, place);
    const offset = BIG_INDEX.contentOffset(7) + 300_000;
    let wrong = 1;
    place.spoil = (bytes, digest) => {
      if (digest === digestOf(layer.target) && wrong-- > 0) bytes[20_000] ^= 1;
    };
    assert.ok(BIG_CONTENT.subarray(offset, offset + 5000).equals(await device.read(CONTENT_AT + offset, 5000)));
    assert.equal(place.readsOf(layer.target).length, 2);
    const later = BIG_INDEX.contentOffset(12);
    const wrongRange = BIG_INDEX.storedRange(12);
    place.spoil = (bytes, digest, at) => {
      const flipped = wrongRange.start + 20_000 - at;
      if (wrong > 0 && digest === digestOf(layer.target) && flipped >= 0 && flipped < bytes.length) bytes[flipped] ^= 1;
    };
    wrong = 1;
    const place12 = new RegExp(`blob ${digestOf(layer.target)}: bytes \\[${later}, ${BIG_INDEX.contentOffset(13)}\\) of the content`);
    for (const inside of [1000, 500_000]) {
      await assert.rejects(device.read(CONTENT_AT + later + inside, 5000), { code: "CORRUPT", message: place12 });
    }
    // What shares a chunk with it can still be read.
    assert.ok(BIG_CONTENT.subarray(later - 1000, later).equals(await device.read(CONTENT_AT + later - 1000, 1000)));
    assert.ok(METADATA.subarray(0, 100).equals(await device.read(0, 100)), "the rest can be read");
    wrong = 0;
    assert.ok(BIG_CONTENT.subarray(later, later + 5000).equals(await device.read(CONTENT_AT + later, 5000)));
    await device.close();
  });
}

test("an index that belongs to another blob of the same size gives errors, never wrong bytes", async () => {
  const other = gzipSync(Buffer.from(BIG_CONTENT).fill("x", 10_000_000, 10_001_000), { level: 6 });
  const sized = Buffer.concat([other, Buffer.alloc(Math.max(0, BIG[0].length - other.length))]).subarray(0, BIG[0].length);
  const layer = { ...(await bigLayer()), target: sized };
  const annotations = { ...layer.descriptor.annotations, [`${PREFIX}turbo-oci/target-digest`]: digestOf(sized) };
  const device = await openLayers([{ ...layer, descriptor: { ...layer.descriptor, annotations } }]);
  for (let span = 0; span < BIG_INDEX.spanCount; span++) {
    const offset = BIG_INDEX.contentOffset(span);
    await device.read(CONTENT_AT + offset, 1000).then(
      (bytes) => assert.ok(BIG_CONTENT.subarray(offset, offset + 1000).equals(bytes)),
      (error: unknown) => assert.ok(error instanceof LazyError && error.code === "CORRUPT", String(error)),
    );
  }
  await assert.rejects(device.read(CONTENT_AT + 10_000_000, 1000), { code: "CORRUPT" });
  await device.close();
});

const PLAIN = BIG_CONTENT.subarray(0, 3_000_320); // whole sectors, but no whole number of spans

async function plainLayer(more: readonly TarMember[], target: Uint8Array = PLAIN): Promise<Required<StoredLayer>> {
  const rows: Row[] = [[0, 8, 8], [8, PLAIN.length / SECTOR_BYTES, 0, TARGET_TAG]]; // prettier-ignore
  const metadata = await warpLayer(rows, METADATA, PLAIN.length);
  return turboLayer({ members: [{ name: "ext4.fs.meta", data: metadata }, ...more], target, targetMediaType: OCI_LAYER_TAR });
}

test("a target that is no compressed tar is read as it is, its digests telling its size, or the place", async () => {
  await using directory = await TemporaryDirectory.create();
  for (const cache of [undefined, await openCache(directory)]) {
    const layer = await plainLayer([{ name: "spans.sha256", data: spanDigests(PLAIN) }]);
    const device = await openLayers([layer], { cache });
    assert.ok(PLAIN.equals(await device.read(CONTENT_AT, PLAIN.length)));
    await device.close();
  }
  const bare = await plainLayer([]);
  await refuses([bare], { code: "UNSUPPORTED", message: /whose size neither the layer nor place tells/ });
  const sized = (place: WatchedPlace): WatchedPlace => Object.assign(place, { blobSize: async (digest: string) => [...place.blobs].find(([found]) => found === digest)?.[1].length }); // prettier-ignore
  const device = await openLayers([bare], {}, sized(new WatchedPlace([bare])));
  assert.ok(PLAIN.subarray(1_048_000, 1_049_000).equals(await device.read(CONTENT_AT + 1_048_000, 1000)));
  await device.close();
  const { descriptor, blob } = bare;
  await refuses([bare], { code: "NOT_FOUND", message: /--data-repository/ }, sized(new WatchedPlace([{ descriptor, blob }])));
});

test("a compressed target without an index is refused, whatever it is declared to be", async () => {
  const target = gzipSync(PLAIN);
  const digests = [{ name: "spans.sha256", data: spanDigests(target) }];
  await refuses([await plainLayer(digests, target)], {
    code: "CORRUPT",
    message: /which is compressed with gzip, but the layer has no index of it/,
  });
  for (const [type, index] of [[OCI_LAYER_GZIP, "gzip.meta"], [OCI_LAYER_ZSTD, "zstd.meta"]] as const) {
    const layer = await plainLayer(digests);
    const annotations = { ...layer.descriptor.annotations, [`${PREFIX}turbo-oci/target-media-type`]: type };
    await refuses([{ ...layer, descriptor: { ...layer.descriptor, annotations } }], { code: "CORRUPT", message: new RegExp(`it has no ${index}`) });
  } // prettier-ignore
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

test("layer blobs with random damage inside of them are refused, or read as before", async () => {
  const layer = recordedTurboLayers("mkfs")[2];
  const tar = gunzipSync(layer.blob);
  const expected = await (await openLayers([layer])).read(0, 2 ** 20);
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(tar.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }), async (edits) => {
      const damaged = Buffer.from(tar);
      for (const [at, value] of edits) damaged[at] = value;
      const blob = gzipSync(damaged, { level: 1 });
      const { descriptor } = nativeLayer(blob);
      const changed = { ...layer, blob, descriptor: { ...descriptor, annotations: layer.descriptor.annotations! } };
      try {
        const device = await openLayers([changed]);
        assert.ok(Buffer.from(expected).equals(await device.read(0, 2 ** 20)));
      } catch (error) {
        refused++;
        assert.ok(error instanceof LazyError && ["CORRUPT", "UNSUPPORTED"].includes(error.code), String(error));
      }
    }),
    { numRuns: 150 },
  );
  assert.ok(refused > 20, `${refused} were refused`);
});
