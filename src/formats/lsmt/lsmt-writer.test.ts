import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource } from "../../bytes/source.ts";
import { LazyError } from "../../errors.ts";
import { lsmtRecord, SECTOR_BYTES } from "./layout.ts";
import { openLayer, type LsmtLayer } from "./lsmt-reader.ts";
import type { LsmtOptions } from "./layer-identity.ts";
import { LsmtWriter } from "./lsmt-writer.ts";
import { MappingList } from "./mapping-list.ts";
import { stackLayers } from "./stack.ts";

const VIRTUAL_SIZE = 1 << 20;
const hasCode = (code: string) => (error: unknown) => error instanceof LazyError && error.code === code;

/** A sector whose bytes tell its number. */
function sector(number: number): Buffer {
  return Buffer.alloc(SECTOR_BYTES, `sector ${number}, `);
}

async function layerOf(
  mappings: readonly [first: number, sectors: number, mapped: number, zeroed?: boolean][],
  dataSectors = 64,
  options: Partial<LsmtOptions> = {},
): Promise<{ layer: LsmtLayer; bytes: Uint8Array; segments: number }> {
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: VIRTUAL_SIZE, ...options });
  for (let i = 0; i < dataSectors; i++) assert.equal(await writer.append(sector(i)), 8 + i);
  const list = new MappingList();
  for (const [first, sectors, mapped, zeroed] of mappings) list.add(first, sectors, mapped, zeroed);
  const summary = await writer.close(list);
  const bytes = sink.bytes();
  assert.equal(summary.bytes, bytes.length);
  return { layer: await openLayer(new MemorySource(bytes)), bytes, segments: summary.segments };
}

function rowsOf(layer: LsmtLayer): number[][] {
  const { segments } = layer;
  return Array.from({ length: segments.count }, (_, i) => [
    segments.firstSector[i],
    segments.sectors[i],
    segments.mappedSector[i],
    segments.zeroed[i],
  ]);
}

test("mappings in any order come out sorted and joined", async () => {
  const { layer, segments } = await layerOf([
    [100, 4, 12],
    [0, 2, 30],
    [96, 4, 8],
    [104, 1, 40],
    [300, 5, 0, true],
    [305, 5, 0, true],
  ]);
  assert.deepEqual(rowsOf(layer), [
    [0, 2, 30, 0],
    [96, 8, 8, 0],
    [104, 1, 40, 0],
    [300, 10, 8, 1],
  ]);
  assert.equal(segments, 4);
});

test("a mapping longer than an entry can say is split", async () => {
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: 1 << 30 });
  await writer.append(new Uint8Array(40_000 * SECTOR_BYTES));
  const list = new MappingList();
  list.add(1000, 40_000, 8);
  list.add(100_000, 20_000, 0, true);
  await writer.close(list);
  assert.deepEqual(rowsOf(await openLayer(new MemorySource(sink.bytes()))), [
    [1000, 16383, 8, 0],
    [17383, 16383, 8 + 16383, 0],
    [33766, 7234, 8 + 32766, 0],
    [100_000, 16383, 8, 1],
    [116_383, 3617, 8, 1],
  ]);
});

test("header and trailer carry the options, the index is padded to 4096 bytes", async () => {
  const uuid = "7c698f19-7dc7-0f6b-8849-aed5ae0e5e9a";
  const { layer, bytes } = await layerOf([[0, 1, 8]], 2, { uuid, parentUuid: "ab07054c-4282-fbe9-70f6-abb2875be6dd", userTag: "größer" });
  assert.equal(layer.uuid, uuid.toUpperCase());
  assert.equal(layer.parentUuid, "AB07054C-4282-FBE9-70F6-ABB2875BE6DD");
  assert.equal(layer.userTag, "größer");
  assert.equal(layer.virtualSize, VIRTUAL_SIZE);
  assert.equal(bytes.length, 4096 + 2 * 512 + 4096 + 4096);
  const header = lsmtRecord.decode(bytes);
  assert.deepEqual([header.flags, header.indexOffset, header.indexEntries], [7, 0, 0]);
  const trailer = lsmtRecord.decode(bytes, bytes.length - 4096);
  assert.deepEqual([trailer.flags, trailer.indexOffset, trailer.indexEntries, trailer.recordBytes], [6, 4096 + 1024, 256, 390]);
  assert.equal(Buffer.from(bytes.subarray(4096 + 1024 + 16, 4096 + 1024 + 32)).toString("hex"), "ffffffffffff03000000000000000000");
});

test("a layer without data and mappings has no index", async () => {
  const { layer, bytes } = await layerOf([], 0);
  assert.equal(bytes.length, 8192);
  assert.equal(layer.segments.count, 0);
  assert.equal(layer.uuid, "00000000-0000-0000-0000-000000000000");
  assert.ok((await stackLayers([layer]).read(1000, 5000)).every((byte) => byte === 0));
});

const refused: [name: string, mappings: [number, number, number, boolean?][]][] = [
  [
    "overlap",
    [
      [0, 4, 8],
      [3, 1, 20],
    ],
  ],
  [
    "begin at the same sector",
    [
      [5, 1, 8],
      [5, 1, 20],
    ],
  ],
  ["are empty", [[0, 0, 8]]],
  ["begin before the device", [[-1, 2, 8]]],
  ["reach beyond the device", [[VIRTUAL_SIZE / 512 - 1, 2, 8]]],
  ["map to the header", [[0, 1, 7]]],
  ["map beyond the data", [[0, 2, 71]]],
  ["are no numbers", [[Number.NaN, 1, 8]]],
  ["lie between sectors", [[0.5, 1, 8]]],
];
for (const [name, mappings] of refused) {
  test(`mappings that ${name} are refused`, async () => {
    await assert.rejects(layerOf(mappings), hasCode("USAGE"));
  });
}

test("options and data that do not fit the format are refused", async () => {
  for (const options of [
    { virtualSize: 511 },
    { virtualSize: -512 },
    { uuid: "7c698f19" },
    { parentUuid: "x".repeat(36) },
    { userTag: "ü".repeat(129) },
  ]) {
    assert.throws(() => new LsmtWriter(new MemorySink(), { virtualSize: 512, ...options }), hasCode("USAGE"), JSON.stringify(options));
  }
  await assert.rejects(new LsmtWriter(new MemorySink(), { virtualSize: 512 }).append(new Uint8Array(100)), hasCode("USAGE"));
});

test("calls that overlap, or come after the end or an error, are refused", async () => {
  const writer = new LsmtWriter(new MemorySink(), { virtualSize: 4096 });
  const first = writer.append(sector(0));
  await assert.rejects(writer.append(sector(1)), hasCode("USAGE"));
  await first;
  await writer.close(new MappingList());
  await assert.rejects(writer.append(sector(1)), hasCode("USAGE"));
  const full = new LsmtWriter(
    { write: async () => await Promise.reject(new LazyError("UNAVAILABLE", "disk full")) },
    { virtualSize: 4096 },
  );
  await assert.rejects(full.append(sector(0)), /disk full/);
  await assert.rejects(full.close(new MappingList()), hasCode("USAGE"));
});

test("an index that readers refuse is not written", async () => {
  for (const [count, fits] of [
    [999_936, true],
    [999_937, false],
  ] as const) {
    const writer = new LsmtWriter({ write: async () => await Promise.resolve() }, { virtualSize: 2 ** 40 });
    await writer.append(new Uint8Array(SECTOR_BYTES));
    const list = new MappingList();
    for (let i = 0; i < count; i++) list.add(i * 2, 1, 8);
    if (fits) assert.equal((await writer.close(list)).segments, count);
    else await assert.rejects(writer.close(list), hasCode("UNSUPPORTED"));
  }
});

test("sectors written in any order read back at their places", async () => {
  const device = VIRTUAL_SIZE / SECTOR_BYTES;
  const places = fc.uniqueArray(fc.nat(device - 1), { minLength: 1, maxLength: 60 });
  const ranges = fc.array(fc.tuple(fc.nat(VIRTUAL_SIZE), fc.nat(20_000)), { minLength: 5, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(places, fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }), ranges, async (order, zeroed, reads) => {
      const expected = Buffer.alloc(VIRTUAL_SIZE);
      for (const [i, place] of order.entries()) if (!zeroed[i]) sector(i).copy(expected, place * SECTOR_BYTES);
      const { layer } = await layerOf(
        order.map((place, i) => [place, 1, 8 + i, zeroed[i]]),
        order.length,
      );
      const stack = stackLayers([layer]);
      assert.equal(Buffer.compare(await stack.read(0, VIRTUAL_SIZE), expected), 0);
      for (const [offset, length] of reads) {
        const bytes = Math.min(length, VIRTUAL_SIZE - offset);
        assert.equal(Buffer.compare(await stack.read(offset, bytes), expected.subarray(offset, offset + bytes)), 0);
      }
    }),
    { numRuns: 40 },
  );
});

test("random stacks read what a plain device of bytes says", async () => {
  const mapping = fc.tuple(fc.nat(400), fc.integer({ min: 1, max: 40 }), fc.nat(63), fc.boolean());
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(mapping, { maxLength: 8 }), { minLength: 1, maxLength: 6 }), async (plans) => {
      const expected = Buffer.alloc(VIRTUAL_SIZE);
      const layers: LsmtLayer[] = [];
      for (const plan of plans) {
        const taken = new Set<number>();
        const mappings: [number, number, number, boolean][] = [];
        for (const [first, sectors, from, zeroed] of plan) {
          const all = Array.from({ length: Math.min(sectors, 64 - from) }, (_, i) => first + i);
          if (all.some((one) => taken.has(one))) continue;
          for (const [i, one] of all.entries()) {
            taken.add(one);
            (zeroed ? Buffer.alloc(SECTOR_BYTES) : sector(from + i)).copy(expected, one * SECTOR_BYTES);
          }
          mappings.push([first, all.length, 8 + from, zeroed]);
        }
        layers.push((await layerOf(mappings)).layer);
      }
      assert.equal(Buffer.compare(await stackLayers(layers).read(0, VIRTUAL_SIZE), expected), 0);
    }),
    { numRuns: 40 },
  );
});

test("a stack has the size of the topmost layer that states one", async () => {
  const sized = (await layerOf([[3, 1, 8]])).layer;
  const smaller = (await layerOf([[2, 1, 8]], 1, { virtualSize: 2048 })).layer;
  const silent = (await layerOf([], 0, { virtualSize: 0 })).layer;
  assert.equal(stackLayers([sized, silent]).size, VIRTUAL_SIZE);
  const stack = stackLayers([sized, smaller, silent]);
  assert.equal(stack.size, 2048);
  assert.deepEqual(Buffer.from(await stack.read(1024, 1024)), Buffer.concat([sector(0), sector(0)]));
  await assert.rejects(stack.read(2000, 100), hasCode("CORRUPT"));
  assert.equal(stackLayers([silent]).size, 0);
});

test("empty and absurd stacks are refused", async () => {
  const { layer } = await layerOf([], 0);
  assert.throws(() => stackLayers([]), hasCode("USAGE"));
  assert.equal(stackLayers(Array.from({ length: 255 }, () => layer)).size, VIRTUAL_SIZE);
  assert.throws(() => stackLayers(Array.from({ length: 256 }, () => layer)), hasCode("UNSUPPORTED"));
});
