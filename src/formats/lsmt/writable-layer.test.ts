import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { lsmtBytes, lsmtSource, SparseSource } from "../../../test/support/lsmt-files.ts";
import { RecordedDisk, type RecordedFile } from "../../../test/support/recorded-file.ts";
import { forms, newFiles, reopened, UUID } from "../../../test/support/writable-forms.ts";
import { LazyError } from "../../errors.ts";
import { AppendLayer } from "./append-layer.ts";
import { lsmtRecord } from "./layout.ts";
import { openLayer } from "./lsmt-reader.ts";
import type { Segments } from "./segment-table.ts";
import { SparseLayer } from "./sparse-layer.ts";
import { stackLayers } from "./stack.ts";
import { openUnsealedLayer, writableFormOf } from "./unsealed-layer.ts";
import { WarpUpper } from "./warp-upper.ts";
import { openWritableStack } from "./writable-stack.ts";

const GIB = 1 << 30;

function rowsOf({ count, firstSector, sectors, mappedSector, zeroed }: Segments): number[][] {
  return Array.from({ length: count }, (_, i) => [firstSector[i], sectors[i], mappedSector[i], zeroed[i]]);
}

async function contentOf(file: RecordedFile): Promise<Uint8Array> {
  return await file.read(0, file.size);
}

test("a new append-only layer has byte for byte the files that the other tool creates", async () => {
  const { uuid } = lsmtRecord.decode(lsmtBytes("append/empty_index"));
  const files = newFiles(new RecordedDisk(), "new");
  await AppendLayer.create(files.data, files.index, { virtualSize: GIB, uuid });
  assert.deepEqual(Buffer.from(await contentOf(files.data)), lsmtBytes("append/empty_data.zst"));
  assert.deepEqual(Buffer.from(await contentOf(files.index)), lsmtBytes("append/empty_index"));
});

test("so has a new sparse layer", async () => {
  const recorded = new SparseSource("empty_data");
  const { uuid } = lsmtRecord.decode(await recorded.read(0, 4096));
  const { data } = newFiles(new RecordedDisk(), "new");
  await SparseLayer.create(data, { virtualSize: GIB, uuid });
  assert.equal(data.size, recorded.size);
  assert.deepEqual(data.extents, recorded.extents);
  assert.deepEqual(await data.read(0, 4096), new Uint8Array(await recorded.read(0, 4096)));
});

test("a layer of the other tool goes on where it stopped, and is written and read as before", async () => {
  const disk = new RecordedDisk();
  const data = disk.file("data", lsmtBytes("append/writable_data.zst"));
  const index = disk.file("index", lsmtBytes("append/writable_index"));
  const layer = await AppendLayer.open(data, index);
  const stored = await openUnsealedLayer(lsmtSource("append/writable_data.zst"), lsmtSource("append/writable_index"));
  assert.deepEqual(rowsOf(layer.segments.toTable()), rowsOf(stored.segments));
  const before = data.size;
  await layer.write(3 * 512, new Uint8Array(1024).fill(7));
  await layer.discard(4 * 512, 512);
  await layer.close();
  assert.equal(data.size, before + 1024);
  assert.equal(index.size, lsmtBytes("append/writable_index").length + 2 * 16);
});

/** The bytes of a sealed file but for those between index and trailer, which mean nothing. */
function withoutPadding(bytes: Uint8Array): Uint8Array {
  const { indexOffset, indexEntries } = lsmtRecord.decode(bytes, bytes.length - 4096);
  return Buffer.concat([bytes.subarray(0, indexOffset + indexEntries * 16), bytes.subarray(bytes.length - 4096)]);
}

test("a sealed append-only layer is the other tool's, but for the padding of its index", async () => {
  const sealed = lsmtBytes("append/sealed.zst");
  const { indexOffset, uuid } = lsmtRecord.decode(sealed, sealed.length - 4096);
  const log = lsmtBytes("append/writable_index");
  lsmtRecord.encodeInto(log, { uuid });
  const disk = new RecordedDisk();
  const files = { data: disk.file("data", sealed.subarray(0, indexOffset)), index: disk.file("index", log) };
  const layer = await AppendLayer.open(files.data, files.index);
  const finished = await layer.seal();
  assert.equal(files.data.size, sealed.length);
  assert.equal(Buffer.compare(withoutPadding(await contentOf(files.data)), withoutPadding(sealed)), 0);
  assert.deepEqual(rowsOf((await openLayer(files.data)).segments), rowsOf(finished.segments));
});

test("so is a sealed sparse layer", async () => {
  const recorded = new SparseSource("sealed_data");
  const trailer = lsmtRecord.decode(await recorded.read(recorded.size - 4096, 4096));
  const disk = new RecordedDisk();
  const data = disk.file("data");
  for (const { offset, length } of recorded.extents) {
    const end = Math.min(offset + length, trailer.indexOffset);
    if (offset < end) await data.write(offset, await recorded.read(offset, end - offset));
  }
  await data.truncate(trailer.indexOffset);
  const layer = await SparseLayer.open(data, data.extents);
  await layer.seal();
  assert.equal(data.size, recorded.size);
  const tail = trailer.indexEntries * 16;
  assert.deepEqual(await data.read(trailer.indexOffset, tail), new Uint8Array(await recorded.read(trailer.indexOffset, tail)));
  assert.deepEqual(await data.read(data.size - 4096, 4096), new Uint8Array(await recorded.read(data.size - 4096, 4096)));
});

test("a sealed layer that is written to again is not sealed any more", async () => {
  for (const form of forms.slice(0, 2)) {
    const files = newFiles(new RecordedDisk(), form.name);
    const layer = await form.create(files, 8192, UUID);
    await layer.write(0, new Uint8Array(4096).fill(1));
    await layer.seal();
    await openLayer(files.data);
    await layer.close();
    reopened(files);
    const again = await form.open(files);
    await again.write(4096, new Uint8Array(4096).fill(2));
    await again.flush();
    await assert.rejects(openLayer(files.data), { code: "CORRUPT" });
    await again.seal();
    assert.equal((await stackLayers([await openLayer(files.data)]).read(4096, 1))[0], 2);
  }
});

test("a sealed append-only layer whose writing goes on is not sealed any more, even if it repeats its own index", async () => {
  const files = newFiles(new RecordedDisk(), "sealed");
  const layer = await AppendLayer.create(files.data, files.index, { virtualSize: 8192, uuid: UUID });
  await layer.write(0, new Uint8Array(4096).fill(1));
  await layer.seal();
  await layer.write(4096, await files.data.read(8192, 512));
  await assert.rejects(openLayer(files.data), { code: "CORRUPT" });
});

test("what a crash left behind an index's entries is cut off for good before anything is written", async () => {
  const disk = new RecordedDisk();
  const files = newFiles(disk, "torn");
  const layer = await AppendLayer.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID });
  await layer.write(0, new Uint8Array(512).fill(1));
  await layer.flush();
  // A sector of entries never arrived, and the one behind it did.
  await files.index.write(4112 + 512, await files.index.read(4096, 16));
  await files.index.truncate(files.index.size + 5);
  const from = disk.operations.length;
  const again = await AppendLayer.open(files.data, files.index);
  assert.equal(again.segments.count, 1);
  assert.equal(files.index.size, 4112);
  assert.deepEqual(
    disk.operations.slice(from).map(({ kind, file }) => [kind, file.name]),
    [
      ["truncate", "torn index"],
      ["flush", "torn index"],
    ],
  );
});

test("data that a crash cut off within a sector stays behind, and new data begins at the next", async () => {
  const files = newFiles(new RecordedDisk(), "odd");
  const layer = await AppendLayer.create(files.data, files.index, { virtualSize: 8192, uuid: UUID });
  await layer.flush();
  await files.data.write(4096, new Uint8Array(700).fill(9));
  const again = await openWritableStack(undefined, await AppendLayer.open(files.data, files.index));
  await again.write(512, new Uint8Array(512).fill(1));
  await again.discard(1024, 512);
  await again.flush();
  assert.equal(files.data.size, 4096 + 3 * 512);
  const stored = stackLayers([await openUnsealedLayer(files.data, files.index)]);
  assert.deepEqual([...new Set(await stored.read(512, 512))], [1]);
  assert.deepEqual([...new Set(await stored.read(0, 512))], [0]);
});

test("an entry for zeros never points behind data that is still being written", async () => {
  const files = newFiles(new RecordedDisk(), "held");
  const layer = await AppendLayer.create(files.data, files.index, { virtualSize: 1 << 20, uuid: UUID });
  const { promise, resolve } = Promise.withResolvers<void>();
  files.data.held = promise;
  const writing = layer.write(0, new Uint8Array(4096));
  await layer.discard(8192, 512);
  await layer.flush();
  assert.equal((await openUnsealedLayer(files.data, files.index)).segments.count, 1);
  resolve();
  await writing;
  await layer.flush();
  assert.equal((await openUnsealedLayer(files.data, files.index)).segments.count, 2);
});

test("writes that fail are not there, and later ones are", async () => {
  for (const form of forms) {
    const files = newFiles(new RecordedDisk(), form.name);
    const layer = await form.create(files, 16384, UUID);
    await layer.write(0, new Uint8Array(4096).fill(1));
    files.data.failure = new Error("disk full");
    await assert.rejects(layer.write(4096, new Uint8Array(4096).fill(2)), /disk full/);
    if (form.name !== "sparse") {
      files.index.failure = new Error("disk full");
      await assert.rejects(layer.flush(), /disk full/);
    }
    await layer.write(8192, new Uint8Array(4096).fill(3));
    await layer.close();
    reopened(files);
    if (form.name === "append") assert.equal(files.data.size, 3 * 4096, "the failed write's room is used again");
    const again = await form.open(files);
    assert.deepEqual(
      rowsOf(again.segments.toTable()).map(([first, sectors]) => [first, sectors]),
      [
        [0, 8],
        [16, 8],
      ],
      form.name,
    );
  }
});

test("a size that is changed holds for whoever opens the layer next", async () => {
  for (const form of forms) {
    const files = newFiles(new RecordedDisk(), form.name);
    const layer = await form.create(files, 0, UUID);
    assert.equal(layer.virtualSize, 0);
    await layer.resize(1 << 20);
    await layer.write((1 << 20) - 4096, new Uint8Array(4096).fill(9));
    await layer.close();
    reopened(files);
    const again = await form.open(files);
    assert.equal(again.virtualSize, 1 << 20);
    assert.equal(again.uuid, UUID);
    assert.equal(again.segments.count, 1);
  }
});

test("ranges outside of the device, parts of units, used files and wrong sizes are refused", async () => {
  for (const form of forms) {
    const files = newFiles(new RecordedDisk(), form.name);
    const layer = await form.create(files, 8192, UUID);
    for (const [offset, length] of [
      [0, 100],
      [100, 4096],
      [8192, 512],
      [4096, 8192],
      [-4096, 4096],
    ]) {
      await assert.rejects(layer.write(offset, new Uint8Array(length)), { code: "USAGE" }, `${offset} + ${length}`);
      await assert.rejects(layer.discard(offset, length), { code: "USAGE" });
    }
    await assert.rejects(form.create(files, 8192, UUID), /expected a new file/);
    await assert.rejects(form.create(newFiles(new RecordedDisk(), "odd"), 1000, UUID), /expected a multiple of 512/);
    await assert.rejects(form.create(newFiles(new RecordedDisk(), "odd"), 512, "1234"), /uuid is "1234"/);
  }
  await assert.rejects(WarpUpper.open(newFiles(new RecordedDisk(), "empty").data, newFiles(new RecordedDisk(), "empty").index), {
    code: "CORRUPT",
  });
});

test("index files of random bytes open and can be read, or are refused", async () => {
  const data = lsmtBytes("append/mkfsonly_data.zst");
  const head = lsmtBytes("append/mkfsonly_index").subarray(0, 4096);
  const word = fc.oneof({ weight: 3, arbitrary: fc.nat(600) }, { weight: 1, arbitrary: fc.nat() });
  const entry = fc.tuple(word, fc.integer({ min: 0, max: 40 }), word, fc.constantFrom(0, 0, 0, 0x800000, 0x1000000));
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { maxLength: 20 }), fc.uint8Array({ maxLength: 40 }), async (entries, tail) => {
      const words = Buffer.alloc(entries.length * 16);
      for (const [i, [first, sectors, mapped, bits]] of entries.entries()) {
        words.writeUInt32LE(first, i * 16);
        words.writeUInt32LE(sectors * 2 ** 18, i * 16 + 4);
        words.writeUInt32LE(mapped, i * 16 + 8);
        words.writeUInt32LE(bits, i * 16 + 12);
      }
      for (const open of [AppendLayer, WarpUpper]) {
        const disk = new RecordedDisk();
        const index = disk.file("index", Buffer.concat([head, words, tail]));
        try {
          const stack = await openWritableStack(undefined, await open.open(disk.file("data", data), index));
          await stack.write(1000, new Uint8Array(3000));
          await stack.read(0, 1 << 16);
          await stack.flush();
          await open.open(disk.file("data", await stack.upper.files[0].read(0, stack.upper.files[0].size)), index);
        } catch (error) {
          if (error instanceof LazyError && error.code === "USAGE" && /target, which was not given/.test(error.message)) continue;
          if (!(error instanceof LazyError && error.code === "CORRUPT")) throw error;
        }
      }
    }),
    { numRuns: 300 },
  );
});

test("entries that wait for a flush are bounded: a write makes one when they are many", async () => {
  const files = newFiles(new RecordedDisk(), "many");
  const layer = await AppendLayer.create(files.data, files.index, { virtualSize: 2 ** 30, uuid: UUID });
  for (let i = 0; i <= 65_536; i++) {
    assert.equal(files.index.size, 4096);
    await layer.discard(i * 1024, 512);
  }
  assert.equal(files.index.size, 4096 + 65_537 * 16);
});

test("the form of a writable layer is told by its data file", async () => {
  assert.equal(await writableFormOf(lsmtSource("append/empty_data.zst")), "append");
  assert.equal(await writableFormOf(new SparseSource("empty_data")), "sparse");
  await assert.rejects(writableFormOf(lsmtSource("append/empty_index")), { code: "CORRUPT" });
  await assert.rejects(writableFormOf(lsmtSource("append/plain.commit.zst")), /open it as a finished layer/);
  await assert.rejects(AppendLayer.open(newFiles(new RecordedDisk(), "a").data, newFiles(new RecordedDisk(), "b").index), {
    code: "CORRUPT",
  });
});

test("a form is not opened as the other", async () => {
  const disk = new RecordedDisk();
  const [append, sparse] = [newFiles(disk, "append"), newFiles(disk, "sparse")];
  await AppendLayer.create(append.data, append.index, { virtualSize: 8192 });
  await SparseLayer.create(sparse.data, { virtualSize: 8192 });
  await assert.rejects(SparseLayer.open(append.data, append.data.extents), { code: "USAGE" });
  await assert.rejects(AppendLayer.open(sparse.data, append.index), { code: "USAGE" });
});
