import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { RecordedDisk } from "../../../test/support/recorded-file.ts";
import { newFiles, placeOf, reopened, UUID } from "../../../test/support/writable-forms.ts";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource } from "../../bytes/source.ts";
import { openZFile } from "../zfile/zfile-reader.ts";
import { commitWarpLayer, mergeLayers } from "./commit-layer.ts";
import { encodeMapping, lsmtRecord, NO_UUID, TARGET_TAG } from "./layout.ts";
import { openLayer, readSealedFile } from "./lsmt-reader.ts";
import { stackLayers } from "./stack.ts";
import { openUnsealedWarpLayer } from "./unsealed-warp-layer.ts";
import { openWarpLayer } from "./warp-layer.ts";
import { WarpUpper } from "./warp-upper.ts";
import { openWritableStack } from "./writable-stack.ts";

const testdata = new URL("../../../testdata/turbo-oci/", import.meta.url);

for (const name of ["mkfs-layer0", "base-layer1", "erofs-layer1"]) {
  test(`${name}.fs.meta of the other tool, taken apart, written again and committed, is the same byte for byte`, async () => {
    const zfile = await openZFile(new MemorySource(readFileSync(new URL(`${name}.fs.meta`, testdata)), name));
    const recorded = await zfile.read(0, zfile.size);
    const { trailer, mappings } = await readSealedFile(new MemorySource(recorded), 0);
    const files = newFiles(new RecordedDisk(), name);
    const upper = await WarpUpper.create(files.data, files.index, { virtualSize: trailer.virtualSize, uuid: UUID });
    for (let i = mappings.count - 1; i >= 0; i--) {
      const [offset, bytes, from] = [mappings.firstSector[i] * 512, mappings.sectors[i] * 512, mappings.mappedSector[i] * 512];
      if (mappings.zeroed[i] === 1) await upper.discard(offset, bytes);
      else if (mappings.tag[i] === TARGET_TAG) await upper.mapTarget(offset, bytes, from);
      else await upper.write(offset, recorded.subarray(from, from + bytes));
    }
    await upper.flush();
    const sink = new MemorySink();
    const identity = (uuid: string): string | undefined => (uuid === NO_UUID ? undefined : uuid);
    await commitWarpLayer(await openUnsealedWarpLayer(files.data, files.index), sink, {
      uuid: identity(trailer.uuid),
      parentUuid: identity(trailer.parentUuid),
    });
    assert.equal(sink.bytes().length, recorded.length);
    assert.equal(Buffer.compare(sink.bytes(), recorded), 0);
  });
}

test("metadata is written in place, and rewriting it makes the index no longer", async () => {
  const files = newFiles(new RecordedDisk(), "warp");
  const upper = await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID });
  assert.deepEqual(Object.fromEntries(Object.entries(lsmtRecord.decode(await files.index.read(0, 4096))).slice(2, 7)), {
    flags: 1,
    indexOffset: 4096,
    indexEntries: 0,
    virtualSize: 1 << 20,
    uuid: UUID,
  });
  await upper.write(8192, new Uint8Array(4096).fill(1));
  await upper.write(8192, new Uint8Array(4096).fill(2));
  await upper.write(4096, new Uint8Array(8192).fill(3));
  await upper.flush();
  assert.equal(files.data.size, 1 << 20);
  assert.deepEqual(files.data.extents, [{ offset: 4096, length: 8192 }]);
  assert.equal(files.index.size, 4096 + 2 * 16);
});

test("what is mapped to the target reads from it, until something else is written there", async () => {
  const target = new MemorySource(
    new Uint8Array(5000).map((_, i) => i % 251),
    "target",
  );
  const files = newFiles(new RecordedDisk(), "warp");
  const upper = await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID }, target);
  const stack = await openWritableStack(undefined, upper);
  await upper.mapTarget(1024, 5120, 0);
  await stack.write(2048, Buffer.from("metadata"));
  await stack.discard(4096, 512);
  const expected = Buffer.alloc(8192);
  expected.set(await target.read(0, 5000), 1024);
  expected.set(Buffer.from("metadata"), 2048);
  expected.fill(0, 4096, 4608);
  assert.deepEqual(await stack.read(0, 8192), expected);
  await stack.close();
  const again = await openWritableStack(undefined, await WarpUpper.open(reopened(files).data, files.index, target));
  assert.deepEqual(await again.read(0, 8192), expected);

  const sink = new MemorySink();
  await commitWarpLayer(await openUnsealedWarpLayer(files.data, files.index), sink, { uuid: UUID });
  const committed = await openWarpLayer(new MemorySource(sink.bytes()), target);
  assert.equal(committed.uuid, UUID);
  assert.deepEqual(await stackLayers([committed]).read(0, 8192), expected);

  const merged = new MemorySink();
  await mergeLayers([committed], merged, {});
  assert.deepEqual(await stackLayers([await openLayer(new MemorySource(merged.bytes()))]).read(0, 8192), expected);
});

test("without its target a layer is opened and committed, and says what is missing when it is read", async () => {
  const files = newFiles(new RecordedDisk(), "warp");
  const upper = await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID });
  await upper.mapTarget(0, 1 << 20, 1024);
  const stack = await openWritableStack(undefined, upper);
  await assert.rejects(stack.read(0, 512), /target, which was not given/);
  await upper.write(512, new Uint8Array(512));
  assert.equal((await stack.read(512, 512)).length, 512);
});

test("a long mapping takes as many entries as their length allows", async () => {
  const files = newFiles(new RecordedDisk(), "warp");
  const upper = await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 30, uuid: UUID });
  await upper.mapTarget(4096, 26 << 20, 8192);
  const { count, firstSector, sectors, mappedSector, tag } = upper.segments.toTable();
  assert.deepEqual(
    Array.from({ length: count }, (_, i) => [firstSector[i], sectors[i], mappedSector[i], tag[i]]),
    [
      [8, 16383, 16, 1],
      [8 + 16383, 16383, 16 + 16383, 1],
      [8 + 2 * 16383, 16383, 16 + 2 * 16383, 1],
      [8 + 3 * 16383, (26 << 11) - 3 * 16383, 16 + 3 * 16383, 1],
    ],
  );
});

test("tags that were counted behind the files of other layers are understood, others refused", async () => {
  const open = async (rows: readonly [firstSector: number, mappedSector: number, tag: number][]): Promise<number[]> => {
    const files = newFiles(new RecordedDisk(), "warp");
    await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID });
    const words = Buffer.alloc(rows.length * 16);
    for (const [i, [first, mapped, tag]] of rows.entries()) {
      words.writeUInt32LE(first, i * 16);
      words.writeUInt32LE(8 * 2 ** 18, i * 16 + 4);
      words.writeUInt32LE(mapped, i * 16 + 8);
      words.writeUInt32LE(tag * 2 ** 24, i * 16 + 12);
    }
    await files.index.write(4096, words);
    const { segments } = await openUnsealedWarpLayer(files.data, files.index);
    return [...segments.tag];
  };
  assert.deepEqual(
    await open([
      [0, 0, 3],
      [8, 100, 4],
    ]),
    [0, 1],
  );
  assert.deepEqual(
    await open([
      [0, 0, 3],
      [8, 8, 3],
    ]),
    [0, 0],
  );
  assert.deepEqual(
    await open([
      [0, 80, 3],
      [8, 100, 3],
    ]),
    [1, 1],
  );
  await assert.rejects(
    open([
      [0, 0, 0],
      [8, 100, 2],
    ]),
    /expected two that follow each other/,
  );
  await assert.rejects(open([[0, 2 ** 20, 0]]), /of the metadata, which has 2048 sectors/);
});

test("a layer whose tags are counted behind other layers' files is gone on with in the same way", async () => {
  const files = newFiles(new RecordedDisk(), "warp");
  await (await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID })).close();
  const words = new DataView(new ArrayBuffer(32));
  encodeMapping(words, 0, 0, 8, 0, false, 3);
  encodeMapping(words, 16, 8, 8, 100, false, 4);
  reopened(files);
  await files.index.write(4096, new Uint8Array(words.buffer));
  const open = async (): Promise<WarpUpper> => await WarpUpper.open(files.data, files.index, undefined, placeOf(files));
  const upper = await open();
  await upper.write(16 * 512, new Uint8Array(512));
  await upper.mapTarget(24 * 512, 512, 4096);
  const rows = ({ segments }: WarpUpper): number[][] => {
    const { count, firstSector, mappedSector, tag } = segments.toTable();
    return Array.from({ length: count }, (_, i) => [firstSector[i], mappedSector[i], tag[i]]);
  };
  const expected = [
    [0, 0, 0],
    [8, 100, 1],
    [16, 16, 0],
    [24, 8, 1],
  ];
  assert.deepEqual(rows(upper), expected);
  const killed = await open();
  assert.deepEqual(rows(killed), expected);
  await killed.flush();
  assert.deepEqual(rows(await open()), expected);
  assert.equal((await files.index.read(4096 + 3 * 16, 16))[15], 4);
});

test("mappings outside of the target or of parts of sectors are refused", async () => {
  const files = newFiles(new RecordedDisk(), "warp");
  const target = new MemorySource(new Uint8Array(4096), "target");
  const upper = await WarpUpper.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID }, target);
  await assert.rejects(upper.mapTarget(0, 4096, 512), /of a target of 4096 bytes/);
  await assert.rejects(upper.mapTarget(0, 512, 100), /expected a multiple of 512/);
  await assert.rejects(upper.mapTarget(0, 100, 0), { code: "USAGE" });
  await assert.rejects(upper.seal(), { code: "UNSUPPORTED" });
});
