import assert from "node:assert/strict";
import { test } from "node:test";
import { lsmtBytes, lsmtSource, SparseSource } from "../../../test/support/lsmt-files.ts";
import { MemorySink, type ByteSink } from "../../bytes/sink.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { compressInline } from "../../compression/block-codec.ts";
import { openTarPayload, payloadHead, payloadTail } from "../../tar/payload.ts";
import { openZFile } from "../zfile/zfile-reader.ts";
import { ZFileWriter } from "../zfile/zfile-writer.ts";
import { commitLayer, mergeLayers } from "./commit-layer.ts";
import { openLayer, type LsmtLayer } from "./lsmt-reader.ts";
import { openUnsealedLayer } from "./unsealed-layer.ts";

type Commit = (sink: Pick<ByteSink, "write">) => Promise<unknown>;

async function plain(commit: Commit): Promise<Uint8Array> {
  const sink = new MemorySink();
  await commit(sink);
  return sink.bytes();
}

async function zfile(commit: Commit, blockSize: number, overwriteHeader: boolean): Promise<Uint8Array> {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, { algorithm: "lz4", blockSize, compress: compressInline, overwriteHeader });
  await commit(writer);
  const { header } = await writer.close();
  const bytes = sink.bytes();
  bytes.set(header, 0);
  return bytes;
}

function assertSame(made: Uint8Array, name: string): void {
  const recorded = lsmtBytes(name);
  assert.equal(made.length, recorded.length, name);
  const at = made.findIndex((byte, i) => byte !== recorded[i]);
  assert.equal(at, -1, `${name} differs at ${at}`);
}

async function append(): Promise<LsmtLayer> {
  return await openUnsealedLayer(lsmtSource("append/writable_data.zst"), lsmtSource("append/writable_index"));
}

async function sparse(): Promise<LsmtLayer> {
  const source = new SparseSource("writable_data");
  return await openUnsealedLayer(source, undefined, source.extents);
}

const UUIDS = { uuid: "11111111-2222-3333-4444-555555555555", parentUuid: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee" };

test("a committed append-only layer is byte for byte what the other tool commits", async () => {
  const layer = await append();
  assertSame(await plain(async (sink) => await commitLayer(layer, sink, {})), "append/plain.commit.zst");
  assertSame(
    await plain(async (sink) => await commitLayer(layer, sink, { ...UUIDS, userTag: "user tag: hello fixture" })),
    "append/plain-uuid-parent-tag.commit.zst",
  );
});

for (const size of [4, 8, 16, 32]) {
  test(`so is one in a ZFile of ${size} KiB blocks`, async () => {
    const layer = await append();
    assertSame(await zfile(async (sink) => await commitLayer(layer, sink, {}), size << 10, true), `append/lz4-${size}k.commit`);
  });
}

test("a committed sparse layer is byte for byte what the other tool commits", async () => {
  const layer = await sparse();
  assertSame(await plain(async (sink) => await commitLayer(layer, sink, {})), "sparse/plain.commit.zst");
  const wrapped = await zfile(async (sink) => await commitLayer(layer, sink, UUIDS), 4096, true);
  assertSame(Buffer.concat([payloadHead(wrapped.length), wrapped, payloadTail(wrapped.length)]), "sparse/lz4-4k-tar.commit");
});

test("so is a layer that was sealed in place and is committed then", async () => {
  const sealed = await openLayer(new SparseSource("sealed_data"));
  assertSame(await zfile(async (sink) => await commitLayer(sealed, sink, {}), 4096, true), "sparse/commit-sealed-lz4.commit");
  const appended = await openLayer(lsmtSource("append/sealed.zst"));
  assertSame(await zfile(async (sink) => await commitLayer(appended, sink, {}), 4096, true), "append/lz4-4k.commit");
});

async function inZFile(source: ByteSource): Promise<LsmtLayer> {
  return await openLayer(await openZFile(await openTarPayload(source)));
}

test("merged layers are byte for byte what the other tool merges", async () => {
  const second = await inZFile(lsmtSource("append/second.commit"));
  const first = await inZFile(lsmtSource("append/lz4-4k.commit"));
  assertSame(await zfile(async (sink) => await mergeLayers([first, second], sink, {}), 4096, false), "append/merged.commit");
});
