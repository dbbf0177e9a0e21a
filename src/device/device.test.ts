import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { FileSource } from "../bytes/file.ts";
import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { BlockCache } from "../cache/block-cache.ts";
import { openLayer } from "../formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../formats/lsmt/stack.ts";
import { openZFile } from "../formats/zfile/zfile-reader.ts";
import { digestOf } from "../oci/digest.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Manifest } from "../oci/manifest.ts";
import { openTarPayload } from "../tar/payload.ts";
import { openSyncReader } from "./cached-reader-worker.ts";
import type { BlobPlace } from "./blob-place.ts";
import { Device } from "./device.ts";
import { openNativeLayer } from "./native-layer.ts";
import { openDevice } from "./open-device.ts";
import { probeFilesystem } from "./filesystem.ts";

const CHUNK_BYTES = 64 * 1024;

const LAYERS = [0, 1, 2].map((layer) =>
  zstdDecompressSync(readFileSync(new URL(`../../testdata/overlaybd/stack-layer${layer}.commit.zst`, import.meta.url))),
);

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "device-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function openCache(): Promise<BlockCache> {
  return await BlockCache.open(directory, { capacityBytes: 2 ** 30, chunkBytes: CHUNK_BYTES });
}

function manifestOf(blobs: readonly Uint8Array[], annotations?: Record<string, string>): Manifest {
  const layers = blobs.map((blob): Descriptor => {
    return {
      mediaType: "application/vnd.oci.image.layer.v1.tar",
      digest: digestOf(blob),
      size: blob.length,
      ...(annotations && { annotations }),
    };
  });
  return { schemaVersion: 2, config: layers[0], layers };
}

/** A place that holds blobs, and notes what is asked of each. `spoil` changes what it hands out. */
class ObservedPlace implements BlobPlace {
  readonly name = "place";
  readonly reads = new Map<string, [offset: number, length: number][]>();
  spoil: (bytes: Uint8Array, offset: number) => void = () => {};
  closed = 0;
  /** How often somebody said that bytes were wrong. */
  distrusted = 0;
  readonly #blobs: Map<string, Uint8Array>;

  constructor(blobs: readonly Uint8Array[]) {
    this.#blobs = new Map(blobs.map((blob) => [digestOf(blob), blob]));
  }

  async blobSize(digest: string): Promise<number | undefined> {
    return this.#blobs.get(digest)?.length;
  }

  async blobSource({ digest }: Descriptor): Promise<ByteSource> {
    const inner = new MemorySource(this.#blobs.get(digest)!, digest);
    const reads: [number, number][] = [];
    this.reads.set(digest, reads);
    return {
      name: digest,
      size: inner.size,
      read: async (offset, length) => {
        reads.push([offset, length]);
        const bytes = await inner.read(offset, length);
        this.spoil(bytes, offset);
        return bytes;
      },
      distrust: () => void this.distrusted++,
      close: async () => {
        this.closed++;
      },
    };
  }

  counts(): number[] {
    return [...this.reads.values()].map((reads) => reads.length);
  }
}

/** The same device without this room: every layer in memory, read by the formats alone. */
async function plainDevice(): Promise<ByteSource> {
  return stackLayers(
    await Promise.all(LAYERS.map(async (layer) => await openLayer(await openZFile(await openTarPayload(new MemorySource(layer)))))),
  );
}

/** Stretches of the device that hold data, and their surroundings. */
async function ranges(): Promise<fc.Arbitrary<[offset: number, length: number]>> {
  const { segments, size } = (await plainDevice()) as Device & { segments: { count: number; firstSector: Float64Array } };
  return fc.tuple(fc.nat(segments.count - 1), fc.integer({ min: -5000, max: 200_000 }), fc.nat(200_000)).map(([segment, shift, length]) => {
    const offset = Math.max(0, segments.firstSector[segment] * 512 + shift);
    return [offset, Math.min(length, size - offset)];
  });
}

for (const cached of [false, true]) {
  test(`a device reads as its layers do ${cached ? "through a cache" : "without a cache"}`, async () => {
    const plain = await plainDevice();
    const device = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS), cached ? { cache: await openCache() } : {});
    await fc.assert(
      fc.asyncProperty(await ranges(), async ([offset, length]) => {
        assert.ok(Buffer.from(await device.read(offset, length)).equals(await plain.read(offset, length)));
      }),
      { numRuns: 60 },
    );
    await device.close();
  });
}

test("what a worker reads from the cache is what the device reads, or it declines", async () => {
  const device = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS), { cache: await openCache() });
  const plain = await plainDevice();
  const reader = openSyncReader(device.cachedReader!.data);
  await fc.assert(
    fc.asyncProperty(await ranges(), fc.boolean(), async ([offset, length], load) => {
      const target = new Uint8Array(length);
      let served = reader.readCached(offset, target);
      for (let i = 0; load && !served; i++) {
        assert.ok(i < 1000, "what was read is cached before long");
        await device.read(offset, length);
        await sleep(5);
        served = reader.readCached(offset, target);
      }
      if (served) assert.ok(Buffer.from(await plain.read(offset, length)).equals(target));
    }),
    { numRuns: 100 },
  );
  assert.equal(reader.readCached(device.size - 10, new Uint8Array(11)), false);
  await device.close();
});

test("a worker reads nothing where nothing is cached", async () => {
  const device = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS), { cache: await openCache() });
  const reader = openSyncReader(device.cachedReader!.data);
  const { segments } = (await plainDevice()) as Device & { segments: { firstSector: Float64Array } };
  assert.equal(reader.readCached(segments.firstSector[0] * 512 + 9, new Uint8Array(0)), true);
  await device.close();
});

/** Layers in files: the lowest as it is stored, the next without its tar, the uppermost without its ZFile. */
async function openLocalDevice(): Promise<{ readonly device: Device; readonly paths: readonly string[] }> {
  const paths = LAYERS.map((_, layer) => join(directory, `layer${layer}`));
  const payload = await openTarPayload(new MemorySource(LAYERS[1]));
  const lsmt = await openZFile(await openTarPayload(new MemorySource(LAYERS[2])));
  for (const [layer, source] of [new MemorySource(LAYERS[0]), payload, lsmt].entries()) {
    writeFileSync(paths[layer], await source.read(0, source.size));
  }
  const layers = await Promise.all(
    paths.map(async (path) => await openNativeLayer(await FileSource.open(path), { declared: true, keepPinned: false })),
  );
  return { device: new Device(layers, { requests: 0, bytes: 0 }), paths };
}

test("a worker reads all of a device whose layers are in files", async () => {
  const { device } = await openLocalDevice();
  const plain = await plainDevice();
  const reader = openSyncReader(structuredClone(device.cachedReader!.data));
  await fc.assert(
    fc.asyncProperty(await ranges(), async ([offset, length]) => {
      const target = new Uint8Array(length);
      assert.equal(reader.readCached(offset, target), true);
      assert.ok(Buffer.from(await plain.read(offset, length)).equals(target));
    }),
    { numRuns: 100 },
  );
  await device.close();
});

test("what is damaged or cut off in a layer's file a worker leaves to the device, which says so", async () => {
  const { device, paths } = await openLocalDevice();
  const plain = await plainDevice();
  const reader = openSyncReader(device.cachedReader!.data);
  const everything = fc.sample(await ranges(), { numRuns: 60, seed: 5 }).filter(([, length]) => length > 0);
  const damaged = readFileSync(paths[0]);
  for (let at = 8192; at < damaged.length; at += 2000) damaged[at] ^= 1;
  writeFileSync(paths[0], damaged);
  writeFileSync(paths[1], readFileSync(paths[1]).subarray(0, 8192));
  let refused = 0;
  for (const [offset, length] of everything) {
    const target = new Uint8Array(length);
    if (reader.readCached(offset, target)) assert.ok(Buffer.from(await plain.read(offset, length)).equals(target));
    else {
      refused++;
      await assert.rejects(device.read(offset, length), { code: "CORRUPT" });
    }
  }
  assert.ok(refused > 0 && refused < everything.length, `${refused} of ${everything.length}`);
  await device.close();
});

for (const cached of [false, true]) {
  test(`opening takes two reads of each layer ${cached ? "through a cache" : "without a cache"}, at its front and its end`, async () => {
    const place = new ObservedPlace(LAYERS);
    const device = await openDevice(place, manifestOf(LAYERS), cached ? { cache: await openCache() } : {});
    assert.deepEqual(place.counts(), [2, 2, 2]);
    for (const [i, [head, tail]] of [...place.reads.values()].entries()) {
      assert.deepEqual(head, [0, 65536]);
      assert.equal(tail[0] + tail[1], LAYERS[i].length);
    }
    assert.equal(device.fetched.requests, 6);
    await device.close();
    assert.equal(place.closed, 3);
  });
}

test("probing finds ext4 and the sector size it can be mounted with", async () => {
  const device = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS));
  assert.deepEqual(await probeFilesystem(device), { type: "ext4", sectorBytes: 4096, needsRecovery: false });
  await device.close();
  await assert.rejects(probeFilesystem(new MemorySource(new Uint8Array(4096))), { code: "UNSUPPORTED", message: /expected ext4/ });
  await assert.rejects(probeFilesystem(new MemorySource(new Uint8Array(10))), { code: "UNSUPPORTED" });
});

test("layers that are not overlaybd are refused as such, or as damaged if they are declared to be", async () => {
  const gzip = Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0]), Buffer.alloc(2000)]);
  for (const blobs of [[gzip], [...LAYERS, gzip], [Buffer.alloc(0)], [Buffer.alloc(600)]]) {
    const place = new ObservedPlace(blobs);
    await assert.rejects(openDevice(place, manifestOf(blobs)), { code: "UNSUPPORTED", message: /convert it first with lazylayer convert/ });
    assert.equal(place.closed, blobs.length, "all sources are closed");
    const declared = manifestOf(blobs, { "containerd.io/snapshot/overlaybd/version": "0.1.0" });
    await assert.rejects(openDevice(new ObservedPlace(blobs), declared), { code: "CORRUPT" });
  }
  await assert.rejects(openDevice(new ObservedPlace([]), { ...manifestOf(LAYERS), layers: [] }), {
    code: "UNSUPPORTED",
    message: /no layers/,
  });
});

test("a layer that is damaged at its place is refused, with a cache and without", async () => {
  const place = new ObservedPlace(LAYERS);
  place.spoil = (bytes, offset) => {
    if (offset === 0) bytes[1536 + 600] ^= 1;
  };
  for (const options of [{}, { cache: await openCache() }]) {
    await assert.rejects(openDevice(place, manifestOf(LAYERS), options), { code: "CORRUPT", message: /sha256:.*zfile block 0/ });
  }
});

test("a place that was wrong once is asked again: what the cache kept of it is dropped", async () => {
  const place = new ObservedPlace(LAYERS);
  const plain = await plainDevice();
  const device = await openDevice(place, manifestOf(LAYERS), { cache: await openCache() });
  const everything = fc.sample(await ranges(), { numRuns: 40, seed: 7 });
  place.spoil = (bytes) => {
    for (let at = 0; at < bytes.length; at += 1000) bytes[at] ^= 1;
  };
  const reader = openSyncReader(device.cachedReader!.data);
  let refused = 0;
  for (const [offset, length] of everything) await device.read(offset, length).catch(() => refused++);
  assert.ok(refused > 0);
  place.spoil = () => {};
  for (const [offset, length] of everything) {
    const expected = await plain.read(offset, length);
    const target = new Uint8Array(length);
    if (reader.readCached(offset, target)) assert.ok(Buffer.from(expected).equals(target));
    assert.ok(Buffer.from(await device.read(offset, length)).equals(expected));
  }
  await device.close();
});

test("without a cache, a place that was wrong is distrusted and asked again, once, also for what is kept in memory", async () => {
  const plain = await plainDevice();
  for (const wrong of ["when it is opened", "in its pinned front", "later"]) {
    const place = new ObservedPlace(LAYERS);
    place.spoil = (bytes, offset) => {
      if (offset > 0 || place.distrusted > 0) return;
      if (wrong === "when it is opened") bytes[1536 + 600] ^= 1;
      if (wrong === "in its pinned front") for (let at = 8000; at < 64_000; at += 1000) bytes[at] ^= 1;
    };
    const device = await openDevice(place, manifestOf(LAYERS));
    if (wrong === "later") {
      place.spoil = (bytes) => {
        if (place.distrusted === 0) bytes[0] ^= 1;
      };
    }
    for (const [offset, length] of fc.sample(await ranges(), { numRuns: 40, seed: 7 })) {
      assert.ok(Buffer.from(await device.read(offset, length)).equals(await plain.read(offset, length)));
    }
    assert.ok(place.distrusted > 0, wrong);
    await device.close();
  }
});

test("a cache with wrong content under right checksums does not keep a device from opening", async () => {
  const first = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS), { cache: await openCache() });
  await first.close();
  const place = new ObservedPlace(LAYERS);
  place.spoil = (bytes, offset) => {
    if (offset === 0) bytes[1536 + 600] ^= 1;
  };
  await rm(directory, { recursive: true });
  await assert.rejects(openDevice(place, manifestOf(LAYERS), { cache: await openCache() }));
  place.spoil = () => {};
  const device = await openDevice(place, manifestOf(LAYERS), { cache: await openCache() });
  await device.close();
});

test("flipping any stored bit never changes what a new device reads", async () => {
  const plain = await plainDevice();
  const sample = fc.sample(await ranges(), { numRuns: 10, seed: 3 });
  const warm = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS), { cache: await openCache() });
  for (const [offset, length] of sample) await warm.read(offset, length);
  await warm.close();
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.nat(), async (file, position) => {
      const names = readdirSync(directory).toSorted();
      const path = join(directory, names[file % names.length]);
      const bytes = readFileSync(path);
      bytes[position % bytes.length] ^= 4;
      writeFileSync(path, bytes);
      const device = await openDevice(new ObservedPlace(LAYERS), manifestOf(LAYERS), { cache: await openCache() });
      const reader = openSyncReader(device.cachedReader!.data);
      for (const [offset, length] of sample) {
        const expected = Buffer.from(await plain.read(offset, length));
        const target = new Uint8Array(length);
        if (reader.readCached(offset, target)) assert.ok(expected.equals(target));
        assert.ok(expected.equals(await device.read(offset, length)));
      }
      await device.close();
    }),
    { numRuns: 8 },
  );
});
