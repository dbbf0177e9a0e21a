import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource } from "../../bytes/source.ts";
import { compressInline } from "../../compression/block-codec.ts";
import { LazyError } from "../../errors.ts";
import { openZFile } from "../zfile/zfile-reader.ts";
import { ZFileWriter } from "../zfile/zfile-writer.ts";
import { lsmtRecord, MAX_MAPPING_SECTORS, SECTOR_BYTES, TARGET_TAG } from "./layout.ts";
import { openLayer, type LsmtLayer } from "./lsmt-reader.ts";
import { LsmtWriter } from "./lsmt-writer.ts";
import { MappingList } from "./mapping-list.ts";
import { stackLayers } from "./stack.ts";
import { openWarpLayer } from "./warp-layer.ts";

const VIRTUAL_SIZE = 1 << 20;
const DEVICE_SECTORS = VIRTUAL_SIZE / SECTOR_BYTES;
const TARGET_SECTORS = 300;

type Row = readonly [first: number, sectors: number, mapped: number, tag?: number, zeroed?: boolean];

/** A sector whose bytes tell its number and whose it is. */
function sector(file: string, number: number): Buffer {
  return Buffer.alloc(SECTOR_BYTES, `${file} ${number}, `);
}

function sectors(file: string, count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, i) => sector(file, i)));
}

const TARGET = sectors("target", TARGET_SECTORS);

function listOf(rows: readonly Row[]): MappingList {
  const list = new MappingList();
  for (const [first, count, mapped, tag, zeroed] of rows) list.add(first, count, mapped, zeroed, tag);
  return list;
}

async function warpBytes(
  rows: readonly Row[],
  metadata: Uint8Array = sectors("metadata", 40),
  targetBytes = TARGET.length,
): Promise<Buffer> {
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: VIRTUAL_SIZE, uuid: "11111111-2222-3333-4444-555555555555" });
  await writer.append(metadata);
  await writer.closeWarp(listOf(rows), targetBytes);
  return Buffer.from(sink.bytes());
}

const target = (bytes: Uint8Array = TARGET): MemorySource => new MemorySource(bytes, "the target");

async function openWarp(bytes: Uint8Array, targetBytes?: Uint8Array): Promise<LsmtLayer> {
  return await openWarpLayer(new MemorySource(bytes, "a layer"), target(targetBytes));
}

/** Byte offset of the `n`-th index entry of a layer of `count` entries. */
const entryAt = (bytes: Uint8Array, count: number, n: number): number => bytes.length - 4096 - 16 * (count - n);

function rowsOf({ segments }: LsmtLayer): number[][] {
  const { firstSector, sectors: lengths, mappedSector, tag, zeroed } = segments;
  return Array.from({ length: segments.count }, (_, i) => [firstSector[i], lengths[i], mappedSector[i], tag[i], zeroed[i]]);
}

const SMALL: readonly Row[] = [
  [0, 8, 8],
  [8, 20, 100, TARGET_TAG],
  [28, 4, 16],
  [100, 1, 0, TARGET_TAG],
];

test("metadata comes from the layer's file, data from the target", async () => {
  const bytes = await warpBytes(SMALL);
  const device = stackLayers([await openWarp(bytes)]);
  assert.deepEqual(await device.read(0, 512), new Uint8Array(sector("metadata", 0)));
  const expected = [sector("metadata", 7), sector("target", 100), sector("target", 101)];
  assert.equal(Buffer.compare(await device.read(7 * 512, 3 * 512), Buffer.concat(expected)), 0);
  assert.equal(Buffer.compare(await device.read(28 * 512, 512), sector("metadata", 8)), 0);
  assert.equal(Buffer.compare(await device.read(100 * 512, 1024), Buffer.concat([sector("target", 0), Buffer.alloc(512)])), 0);
});

test("a layer is a header, data, an index of exactly its entries and a trailer right behind", async () => {
  const bytes = await warpBytes(SMALL);
  const [header, trailer] = [lsmtRecord.decode(bytes), lsmtRecord.decode(bytes.subarray(-4096))];
  assert.deepEqual([header.flags, trailer.flags], [7, 6]);
  assert.deepEqual([header.indexOffset, header.indexEntries], [0, 0]);
  assert.deepEqual([trailer.indexOffset, trailer.indexEntries], [4096 + 40 * 512, SMALL.length]);
  assert.equal(bytes.length, trailer.indexOffset + SMALL.length * 16 + 4096);
  assert.deepEqual([trailer.uuid, trailer.virtualSize], ["11111111-2222-3333-4444-555555555555", VIRTUAL_SIZE]);
  // Bits 56 to 63 of an entry's second word.
  assert.deepEqual(
    SMALL.map((_, n) => bytes[entryAt(bytes, SMALL.length, n) + 15]),
    [0, 1, 0, 1],
  );
});

test("neighbours join only when their data is in the same file, and long ones are split", async () => {
  const bytes = await warpBytes([
    [8, 4, 12, TARGET_TAG],
    [4, 4, 8, TARGET_TAG],
    [0, 4, 8],
    [12, 4, 16],
    [16, 4, 0, 0, true],
    [20, 4, 0, TARGET_TAG, true],
  ]);
  assert.deepEqual(rowsOf(await openWarp(bytes)), [
    [0, 4, 8, 0, 0],
    [4, 8, 8, 1, 0],
    [12, 4, 16, 0, 0],
    [16, 8, 8, 0, 1],
  ]);
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: 2 ** 30 });
  await writer.append(sector("metadata", 0));
  const long = 3 * MAX_MAPPING_SECTORS;
  await writer.closeWarp(listOf([[0, 1, 8], [1, long, 5, TARGET_TAG]]), (long + 5) * SECTOR_BYTES); // prettier-ignore
  const longTarget = target();
  Object.defineProperty(longTarget, "size", { value: (long + 5) * SECTOR_BYTES });
  const layer = await openWarpLayer(new MemorySource(sink.bytes()), longTarget);
  assert.deepEqual(
    rowsOf(layer).slice(1),
    [0, 1, 2].map((i) => [1 + i * MAX_MAPPING_SECTORS, MAX_MAPPING_SECTORS, 5 + i * MAX_MAPPING_SECTORS, 1, 0]),
  );
});

test("what the writer is given wrongly is refused", async () => {
  const refused = async (rows: readonly Row[], message: RegExp, targetBytes?: number): Promise<void> => {
    await assert.rejects(
      warpBytes(rows, undefined, targetBytes),
      (error: LazyError) => error.code === "USAGE" && message.test(error.message),
    );
  };
  await refused([[0, 1, 8], [1, 2, 299, TARGET_TAG]], /maps to sector 299, the data lies in \[0, 300\)/); // prettier-ignore
  await refused([[0, 1, 8], [1, 1, 1, TARGET_TAG]], /lies in \[0, 1\)/, 512); // prettier-ignore
  await refused([[0, 1, 8, 2]], /tag 2/);
  await refused([[0, 1, 7]], /maps to sector 7/);
  await refused([[0, 1, 8, TARGET_TAG]], /expected metadata too/);
  const writer = new LsmtWriter(new MemorySink(), { virtualSize: VIRTUAL_SIZE });
  await writer.append(sector("metadata", 0));
  await assert.rejects(writer.close(listOf([[0, 1, 8, TARGET_TAG]])), { code: "USAGE", message: /has tag 1/ });
});

test("a layer without its target is never taken for another", async () => {
  await assert.rejects(openLayer(new MemorySource(await warpBytes([[0, 40, 8], [40, 4, 10, TARGET_TAG]]))), {
    code: "UNSUPPORTED",
    message: /the metadata of a turboOCI layer, which cannot be read without the tar/,
  }); // prettier-ignore
  const empty = await warpBytes([], new Uint8Array(0));
  assert.equal((await openWarp(empty)).segments.count, 0);
});

test("a target that a mapping reaches beyond is refused, with the place in the layer", async () => {
  const bytes = await warpBytes(SMALL);
  await assert.rejects(openWarp(bytes, TARGET.subarray(0, 119 * 512)), {
    code: "CORRUPT",
    message: "a layer: lsmt index at 24576: segment 1 (sectors 8 + 20) maps to [100, 120) of the target, which has 119 sectors",
  });
  await assert.doesNotReject(openWarp(bytes, TARGET.subarray(0, 120 * 512)));
});

test("a target that ends within a sector is filled up with zeros", async () => {
  const bytes = await warpBytes(SMALL);
  const layer = await openWarp(bytes, TARGET.subarray(0, 120 * 512 - 100));
  const device = stackLayers([layer]);
  const expected = Buffer.concat([sector("target", 118), sector("target", 119).subarray(0, 412), Buffer.alloc(100), sector("metadata", 8)]);
  assert.equal(Buffer.compare(await device.read(26 * 512, 3 * 512), expected), 0);
  assert.equal(Buffer.compare(await device.read(28 * 512 - 50, 50), Buffer.alloc(50)), 0);
  await assert.rejects(layer.files[1].read(120 * 512, 1), { code: "CORRUPT" });
});

/** The layer with every tag of its index changed. */
function retagged(bytes: Buffer, count: number, change: (tag: number) => number): Buffer {
  const changed = Buffer.from(bytes);
  for (let n = 0; n < count; n++) {
    const at = entryAt(bytes, count, n) + 15;
    changed[at] = change(changed[at]);
  }
  return changed;
}

test("tags count from the lowest, which is the metadata's", async () => {
  const bytes = await warpBytes(SMALL);
  const expected = rowsOf(await openWarp(bytes));
  for (const first of [1, 3, 254]) assert.deepEqual(rowsOf(await openWarp(retagged(bytes, 4, (tag) => tag + first))), expected);
  const refused = { code: "CORRUPT", message: /tags from 0 to 2, expected two that follow each other/ };
  await assert.rejects(openWarp(retagged(bytes, 4, (tag) => tag * 2)), refused);
});

test("where there is one tag only, the layer's own data tells whose it is", async () => {
  const onlyMetadata: readonly Row[] = [[0, 40, 8]];
  const metadata = await warpBytes(onlyMetadata);
  for (const tag of [0, 1, 7]) assert.deepEqual(rowsOf(await openWarp(retagged(metadata, 1, () => tag))), [[0, 40, 8, 0, 0]]);
  // As a writer that knows no better makes it: nothing but mappings to the target.
  const onlyTarget = retagged(await warpBytes([[0, 1, 8]], sector("", 0)), 1, () => 1);
  const withoutData = Buffer.concat([onlyTarget.subarray(0, 4096), onlyTarget.subarray(4096 + 512)]);
  withoutData.writeUInt32LE(4096, withoutData.length - 4096 + 32);
  assert.deepEqual(rowsOf(await openWarp(withoutData)), [[0, 1, 8, 1, 0]]);
  assert.deepEqual(rowsOf(await openWarp(retagged(withoutData, 1, () => 9))), [[0, 1, 8, 1, 0]]);
  await assert.rejects(openWarp(retagged(withoutData, 1, () => 0)), { code: "CORRUPT", message: /maps to \[8, 9\)/ });
  const partly = await warpBytes([[0, 30, 8]]);
  await assert.rejects(openWarp(retagged(partly, 1, () => 1)), { code: "CORRUPT", message: /neither metadata nor data/ });
});

test("an index with padding, or a gap behind it, is refused", async () => {
  const bytes = await warpBytes(SMALL);
  const padded = Buffer.concat([bytes.subarray(0, -4096), Buffer.alloc(16), bytes.subarray(-4096)]);
  await assert.rejects(openWarp(padded), { code: "CORRUPT", message: /expected it to end at most 0 before/ });
  await assert.rejects(openWarp(bytes.subarray(0, -1)), { code: "CORRUPT" });
});

test("closing a layer closes its file and its target", async () => {
  const closed: string[] = [];
  const observed = (bytes: Uint8Array, name: string): MemorySource => {
    const source = new MemorySource(bytes, name);
    source.close = async () => {
      closed.push(name);
    };
    return source;
  };
  const layer = await openWarpLayer(observed(await warpBytes(SMALL), "layer"), observed(TARGET.subarray(0, -1), "target"));
  await layer.close();
  assert.deepEqual(closed, ["layer", "target"]);
});

const anyRow = fc.tuple(fc.nat(DEVICE_SECTORS - 64), fc.integer({ min: 1, max: 60 }), fc.nat(), fc.constantFrom(0, 0, 1, 1, 2));

/** A layer of random mappings that do not overlap, and what it does to a device. */
async function randomLayer(
  wanted: readonly [number, number, number, number][],
  name: string,
  isWarp: boolean,
  model: Buffer,
): Promise<LsmtLayer> {
  const own = sectors(`${name}, own`, 64);
  const remote = sectors(`${name}, target`, 90).subarray(0, -77);
  const filled = Buffer.concat([remote, Buffer.alloc(77)]);
  const list = listOf([[DEVICE_SECTORS - 1, 1, 8]]);
  own.copy(model, (DEVICE_SECTORS - 1) * 512, 0, 512);
  const taken = new Set<number>();
  for (const [first, count, random, kind] of wanted) {
    if (Array.from({ length: count }, (_, i) => first + i).some((one) => taken.has(one))) continue;
    for (let i = 0; i < count; i++) taken.add(first + i);
    const isRemote = isWarp && kind === 1;
    const data = isRemote ? filled : own;
    const from = random % (data.length / 512 - count + 1);
    list.add(first, count, isRemote ? from : 8 + from, kind === 2, isRemote ? TARGET_TAG : 0);
    if (kind === 2) model.fill(0, first * 512, (first + count) * 512);
    else data.copy(model, first * 512, from * 512, (from + count) * 512);
  }
  const sink = new MemorySink();
  const zfile = new ZFileWriter(sink, { algorithm: "lz4", compress: compressInline, overwriteHeader: false });
  const writer = new LsmtWriter(zfile, { virtualSize: VIRTUAL_SIZE });
  await writer.append(own);
  await (isWarp ? writer.closeWarp(list, remote.length) : writer.close(list));
  await zfile.close();
  const source = await openZFile(new MemorySource(sink.bytes()));
  return isWarp ? await openWarpLayer(source, new MemorySource(remote)) : await openLayer(source);
}

test("random stacks of warp layers and others read what a plain device of bytes says", async () => {
  const anyLayer = fc.record({ rows: fc.array(anyRow, { maxLength: 30 }), isWarp: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyLayer, { minLength: 1, maxLength: 5 }),
      fc.nat(VIRTUAL_SIZE),
      fc.nat(50_000),
      async (plans, at, length) => {
        const model = Buffer.alloc(VIRTUAL_SIZE);
        const layers: LsmtLayer[] = [];
        for (const [n, { rows, isWarp }] of plans.entries()) layers.push(await randomLayer(rows, `layer ${n}`, isWarp, model));
        const device = stackLayers(layers);
        assert.equal(
          device.files.length,
          layers.reduce((sum, { files }) => sum + files.length, 0),
        );
        assert.equal(Buffer.compare(await device.read(0, VIRTUAL_SIZE), model), 0);
        const end = Math.min(VIRTUAL_SIZE, at + length);
        assert.equal(Buffer.compare(await device.read(at, end - at), model.subarray(at, end)), 0);
      },
    ),
    { numRuns: 40 },
  );
});

test("as many warp layers as can be stacked have twice as many files", async () => {
  const layers: LsmtLayer[] = [];
  for (let n = 0; n < 255; n++) layers.push(await openWarp(await warpBytes([[2 * n, 1, 8 + (n % 40)], [2 * n + 1, 1, n, TARGET_TAG]]))); // prettier-ignore
  const device = stackLayers(layers);
  for (const n of [0, 127, 128, 254]) {
    const expected = Buffer.concat([sector("metadata", n % 40), sector("target", n)]);
    assert.equal(Buffer.compare(await device.read(2 * n * 512, 1024), expected), 0);
  }
  assert.equal(Math.max(...device.segments.tag), 509);
});

const testdata = new URL("../../../testdata/", import.meta.url);
const load = (name: string): Buffer => readFileSync(new URL(name, testdata));
const TARS = ["gzip-index/layer0.tar.gz", "turbo-oci/layer1.tar.gz", "overlaybd/layer2.tar.gz"];

for (const name of [
  "base-layer0",
  "base-layer1",
  "base-layer2",
  "mkfs-layer0",
  "mkfs-layer1",
  "mkfs-layer2",
  "erofs-layer0",
  "erofs-layer1",
  "erofs-layer2",
]) {
  test(`the other tools' layer is read, and written again byte for byte: ${name}`, async () => {
    const own = await openZFile(new MemorySource(load(`turbo-oci/${name}.fs.meta`), name));
    const tar = gunzipSync(load(name === "erofs-layer1" ? "turbo-oci/erofs-layer1.tar.gz" : TARS[Number(name.at(-1))]));
    await assert.rejects(openLayer(own), { code: "UNSUPPORTED" });
    const { segments, virtualSize } = await openWarpLayer(own, target(tar));
    assert.equal(virtualSize, 64 * 2 ** 30);

    const sink = new MemorySink();
    const writer = new LsmtWriter(sink, { virtualSize });
    const list = new MappingList();
    for (let i = 0; i < segments.count; i++) {
      const [mapped, length, tag] = [segments.mappedSector[i], segments.sectors[i], segments.tag[i]];
      if (tag === 0) assert.equal(await writer.append(await own.read(mapped * 512, length * 512)), mapped);
      list.add(segments.firstSector[i], length, mapped, false, tag);
    }
    await writer.closeWarp(list, tar.length);
    assert.equal(Buffer.compare(sink.bytes(), await own.read(0, own.size)), 0);
  });
}

test("damaged layers are refused, or only map what is there", async () => {
  const bytes = await warpBytes(SMALL);
  const records = [
    ...Array.from({ length: 136 }, (_, i) => i),
    ...Array.from({ length: 64 + 136 }, (_, i) => bytes.length - 4096 - 64 + i),
  ];
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.constantFrom(...records), fc.nat(255)), { minLength: 1, maxLength: 4 }), async (edits) => {
      const damaged = Buffer.from(bytes);
      for (const [at, value] of edits) damaged[at] = value;
      let layer: LsmtLayer;
      try {
        layer = await openWarp(damaged);
      } catch (error) {
        assert.ok(error instanceof LazyError && error.code === "CORRUPT", String(error));
        return;
      }
      const { segments, files } = layer;
      for (let i = 0; i < segments.count; i++) {
        if (segments.zeroed[i] === 0) await files[segments.tag[i]].read(segments.mappedSector[i] * 512, segments.sectors[i] * 512);
      }
    }),
    { numRuns: 1500 },
  );
});
