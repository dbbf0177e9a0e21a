import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { RecordedDisk } from "../../../test/support/recorded-file.ts";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";
import { BOOT_ID, newFiles, placeOf, reopened, UUID, type LayerFiles } from "../../../test/support/writable-forms.ts";
import { DiskFile } from "../../bytes/file.ts";
import { MemorySink } from "../../bytes/sink.ts";
import { AppendLayer } from "./append-layer.ts";
import { commitLayer } from "./commit-layer.ts";
import { stackLayers } from "./stack.ts";
import { openUnsealedLayer } from "./unsealed-layer.ts";
import { openUnsealedWarpLayer } from "./unsealed-warp-layer.ts";
import { unsyncedHeader, unsyncedRecord } from "./unsynced-log.ts";
import { WarpUpper } from "./warp-upper.ts";
import { openWritableStack } from "./writable-stack.ts";

const SIZE = 64 * 512;
const WRITES = 6;

function sector(value: number): Uint8Array {
  return new Uint8Array(512).fill(value);
}

/** The first byte of each sector that the test writes. */
async function valuesOf({ read }: { readonly read: (offset: number, length: number) => Promise<Uint8Array> }): Promise<number[]> {
  return await Promise.all(Array.from({ length: WRITES + 2 }, async (_, i) => (await read(i * 512, 512))[0]));
}

async function open(files: LayerFiles, bootId = BOOT_ID): Promise<{ layer: AppendLayer; values: number[]; notices: string[] }> {
  const place = placeOf(files, bootId);
  const layer = await AppendLayer.open(files.data, files.index, place);
  const stack = await openWritableStack(undefined, layer);
  return { layer, values: await valuesOf({ read: stack.read.bind(stack) }), notices: place.notices };
}

/** A layer with two sectors that were flushed, and four more in as many records that were not; its process is gone. */
async function killedLayer(uuid = UUID): Promise<LayerFiles> {
  const files = newFiles(new RecordedDisk(), "killed");
  const layer = await AppendLayer.create(files.data, files.index, { virtualSize: SIZE, uuid }, placeOf(files));
  for (let i = 0; i < WRITES; i++) {
    await layer.write(i * 512, sector(i + 1));
    if (i === 1) await layer.flush();
  }
  assert.equal(files.index.size, 4096 + 2 * 16);
  return files;
}

const FLUSHED = [1, 2, 0, 0, 0, 0, 0, 0];
const WRITTEN = [1, 2, 3, 4, 5, 6, 0, 0];

test("the page's tables are the declared layout", () => {
  const page = readFileSync(new URL("../../../docs/formats/lsmt.md", import.meta.url), "utf8");
  const part = page.split("\n### ").find((each) => each.startsWith("What is written and not flushed")) ?? "";
  const rows = [...part.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| /gm)].map(([, offset, size, field]) => [
    Number(offset),
    Number(size),
    field,
  ]);
  const declared = [unsyncedHeader, unsyncedRecord].flatMap(({ fields }) =>
    Object.entries(fields).map(([field, [offset, { bytes }]]) => [offset, bytes, field]),
  );
  assert.deepEqual(rows, declared);
});

test("what was written and not flushed is there again, is flushed with what follows, and leaves nothing behind", async () => {
  const files = await killedLayer();
  const { layer, values, notices } = await open(files);
  assert.deepEqual([values, notices], [WRITTEN, []]);
  await layer.write(6 * 512, sector(7));
  const again = await open(files);
  assert.deepEqual(again.values, [1, 2, 3, 4, 5, 6, 7, 0]);
  await again.layer.flush();
  assert.equal(files.unsynced.size, 0);
  assert.equal(files.index.size, 4096 + 7 * 16);
  assert.deepEqual((await open(files)).values, [1, 2, 3, 4, 5, 6, 7, 0]);
});

test("tools that read a layer see it, too, and change nothing", async () => {
  const files = await killedLayer();
  const layer = await openUnsealedLayer(files.data, files.index, undefined, placeOf(files));
  const from = files.data.disk.operations.length;
  const stack = stackLayers([layer]);
  assert.deepEqual(await valuesOf({ read: stack.read.bind(stack) }), WRITTEN);
  const sink = new MemorySink();
  const { segments } = await commitLayer(layer, sink, {});
  assert.equal(segments, 1);
  assert.equal(files.data.disk.operations.length, from);
});

test("a turboOCI layer keeps what was mapped and written", async () => {
  const files = newFiles(new RecordedDisk(), "warp");
  await (await WarpUpper.create(files.data, files.index, { virtualSize: SIZE, uuid: UUID })).close();
  const layer = await WarpUpper.open(files.data, files.index, undefined, placeOf(reopened(files)));
  await layer.write(0, sector(1));
  await layer.mapTarget(512, 1024, 4096);
  await layer.discard(2048, 512);
  const rows = ({
    count,
    firstSector,
    sectors,
    mappedSector,
    zeroed,
    tag,
  }: Awaited<ReturnType<typeof openUnsealedWarpLayer>>["segments"]) =>
    Array.from({ length: count }, (_, i) => [firstSector[i], sectors[i], zeroed[i] === 1 ? 0 : mappedSector[i], zeroed[i], tag[i]]);
  const expected = [
    [0, 1, 0, 0, 0],
    [1, 2, 8, 0, 1],
    [4, 1, 0, 1, 0],
  ];
  assert.deepEqual(rows((await openUnsealedWarpLayer(files.data, files.index, undefined, placeOf(files))).segments), expected);
  const again = await WarpUpper.open(files.data, files.index, undefined, placeOf(files));
  assert.deepEqual(rows(again.segments.toTable()), expected);
});

test("after another start of the machine it is dropped, for good", async () => {
  const files = await killedLayer();
  const { values, notices } = await open(files, BOOT_ID.replace("1", "2"));
  assert.deepEqual(values, FLUSHED);
  assert.match(notices.join(), /killed unsynced: is from before the machine was started/);
  assert.equal(files.unsynced.size, 0);
  assert.deepEqual((await open(files)).values, FLUSHED);
});

test("an index file that another program has added to, or another layer's, takes none of it", async () => {
  const grown = await killedLayer();
  const foreign = Buffer.alloc(16);
  foreign.writeBigUInt64LE((1n << 50n) | 7n, 0);
  foreign.writeBigUInt64LE(8n, 8);
  await grown.index.write(grown.index.size, foreign);
  const { values, notices } = await open(grown);
  assert.deepEqual(values, [1, 2, 0, 0, 0, 0, 0, 1]);
  assert.match(notices.join(), /another program has written to the index file since/);

  const [mine, other] = [await killedLayer(), await killedLayer(UUID.replace("0", "F"))];
  const mixed = await open({ ...mine, unsynced: other.unsynced });
  assert.deepEqual(mixed.values, FLUSHED);
  assert.match(mixed.notices.join(), /belongs to another index file/);

  const shorter = await killedLayer();
  await shorter.index.truncate(4096 + 16);
  assert.deepEqual((await open(shorter)).values, [1, 0, 0, 0, 0, 0, 0, 0]);

  const changed = await killedLayer();
  await changed.index.write(4096 + 16, await changed.index.read(4096, 16));
  assert.deepEqual((await open(changed)).values, [1, 0, 0, 0, 0, 0, 0, 0]);
});

test("an index file that has the first of the entries already takes the rest of them", async () => {
  for (let stored = 0; stored <= 4; stored++) {
    const files = await killedLayer();
    const whole = newFiles(new RecordedDisk(), "whole");
    await whole.index.write(0, await files.index.read(0, files.index.size));
    const { layer } = await open({ ...files, index: whole.index });
    await layer.flush();
    // The flush was interrupted: its entries are there, one of them in part, and what is kept has not been emptied.
    const again = await killedLayer();
    await again.index.write(4096 + 2 * 16, await whole.index.read(4096 + 2 * 16, Math.min(stored * 16 + 5, 4 * 16)));
    const { values, notices, layer: last } = await open(again);
    assert.deepEqual([values, notices], [WRITTEN, []]);
    await last.flush();
    assert.deepEqual(await again.index.read(4096, 6 * 16), await whole.index.read(4096, 6 * 16));
  }
});

test("entries that point behind the data are dropped together", async () => {
  const files = await killedLayer();
  await files.data.truncate(4096 + 5 * 512);
  const { values, notices } = await open(files);
  assert.deepEqual(values, FLUSHED);
  assert.match(notices.join(), /does not fit the layer, and is dropped: .*maps to \[13, 14\)/);
});

test("wherever it is cut off or changed, a beginning of what was written is there, and what is written next comes behind that", async () => {
  const whole = await killedLayer();
  const bytes = await whole.unsynced.read(0, whole.unsynced.size);
  const prefixes = Array.from({ length: 5 }, (_, kept) => WRITTEN.map((value, i) => (i < 2 + kept ? value : 0)));
  const changes = fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 })), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length), changes, fc.uint8Array({ maxLength: 60 }), async (length, flips, tail) => {
      const damaged = Buffer.concat([bytes.subarray(0, length), tail]);
      for (const [at, bits] of flips) if (at < damaged.length) damaged[at] ^= bits;
      const files = await killedLayer();
      await files.unsynced.truncate(0);
      await files.unsynced.write(0, damaged);
      const { values, layer } = await open(files);
      const kept = prefixes.findIndex((prefix) => prefix.join() === values.join());
      assert.notEqual(kept, -1, values.join());
      await layer.write(7 * 512, sector(8));
      assert.deepEqual((await open(files)).values, prefixes[kept].with(7, 8));
    }),
    { numRuns: 400 },
  );
});

test("files of random bytes behind a right header are no entries", async () => {
  const whole = await killedLayer();
  const header = await whole.unsynced.read(0, unsyncedHeader.size);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (noise, isHeaded) => {
      const files = await killedLayer();
      await files.unsynced.truncate(0);
      await files.unsynced.write(0, isHeaded ? Buffer.concat([header, noise]) : noise);
      assert.deepEqual((await open(files)).values, FLUSHED);
    }),
    { numRuns: 200 },
  );
});

test("a write that cannot be kept fails, and what it left behind harms nobody", async () => {
  const files = await killedLayer();
  const { layer } = await open(files);
  files.unsynced.failure = new Error("disk full");
  await assert.rejects(layer.write(6 * 512, sector(7)), /disk full/);
  await files.unsynced.write(files.unsynced.size, new Uint8Array(11).fill(3));
  const { values } = await open(files);
  assert.deepEqual(values, WRITTEN);
  // The process that goes on: the next write brings the entry of the failed one along.
  await layer.write(7 * 512, sector(8));
  assert.deepEqual((await open(files)).values, [1, 2, 3, 4, 5, 6, 7, 8]);
});

test("once data cannot be flushed nothing is kept of it, as it may not be what was written", async () => {
  const failing = await killedLayer();
  const { layer } = await open(failing);
  failing.data.flushFailure = new Error("broken disk");
  await assert.rejects(layer.flush(), /broken disk/);
  assert.equal(failing.unsynced.size, 0);
  await layer.write(6 * 512, sector(7));
  assert.equal(failing.unsynced.size, 0);
  assert.deepEqual((await open(failing)).values, FLUSHED);

  const killed = await killedLayer();
  killed.data.flushFailure = new Error("broken disk");
  await assert.rejects(open(killed), /broken disk/);
  assert.deepEqual((await open(killed)).values, FLUSHED);
});

test("the file does not grow without end where writes never pause, and is empty when they do", async () => {
  await using directory = await TemporaryDirectory.create();
  const [data, index, file] = await Promise.all(
    ["data", "index", "unsynced"].map(async (name) => await DiskFile.create(directory.join(name))),
  );
  const place = { file, bootId: BOOT_ID, notice: () => {} };
  const layer = await AppendLayer.create(data, index, { virtualSize: 2 ** 30, uuid: UUID }, place);
  let largest = 0;
  await Promise.all(
    Array.from({ length: 16 }, async (_, lane) => {
      for (let i = 0; i < 5000; i++) {
        // Somebody always waits for an entry to be kept while a flush ends.
        if (lane === 0 && i % 10 === 0) await layer.flush();
        await layer.discard((i * 16 + lane) * 1024, 512);
        largest = Math.max(largest, file.size);
      }
    }),
  );
  await layer.flush();
  assert.ok(largest > 500_000 && largest < 1_200_000, `${largest} bytes`);
  assert.equal(file.size, 0);
  await layer.close();
});
