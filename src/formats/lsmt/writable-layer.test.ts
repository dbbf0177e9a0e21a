import assert from "node:assert/strict";
import { test } from "node:test";
import { lsmtBytes, SparseSource } from "../../../test/support/lsmt-files.ts";
import { RecordedDisk, type RecordedFile } from "../../../test/support/recorded-file.ts";
import { newFiles } from "../../../test/support/writable-forms.ts";
import { AppendLayer } from "./append-layer.ts";
import { lsmtRecord } from "./layout.ts";
import { SparseLayer } from "./sparse-layer.ts";

const GIB = 1 << 30;

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
