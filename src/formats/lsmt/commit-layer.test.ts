import assert from "node:assert/strict";
import { test } from "node:test";
import { lsmtBytes, lsmtSource, SparseSource } from "../../../test/support/lsmt-files.ts";
import { RecordedDisk } from "../../../test/support/recorded-file.ts";
import { newFiles } from "../../../test/support/writable-forms.ts";
import { MemorySink, type ByteSink } from "../../bytes/sink.ts";
import { MemorySource, type ByteSource } from "../../bytes/source.ts";
import { compressInline } from "../../compression/block-codec.ts";
import { digestOf } from "../../oci/digest.ts";
import { openTarPayload, payloadHead, payloadTail } from "../../tar/payload.ts";
import { openZFile } from "../zfile/zfile-reader.ts";
import { ZFileWriter } from "../zfile/zfile-writer.ts";
import { AppendLayer } from "./append-layer.ts";
import { commitLayer, commitWarpLayer, mergeLayers, type MergeOptions } from "./commit-layer.ts";
import { compactedSegments } from "./compaction.ts";
import { NO_UUID, type LsmtRecord } from "./layout.ts";
import { openLayer, readSealedFile, type LsmtLayer } from "./lsmt-reader.ts";
import { LsmtWriter } from "./lsmt-writer.ts";
import { MappingList } from "./mapping-list.ts";
import { stackLayers } from "./stack.ts";
import { openUnsealedLayer } from "./unsealed-layer.ts";
import { openUnsealedWarpLayer } from "./unsealed-warp-layer.ts";

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

test("so is one in a tar", async () => {
  const layer = await append();
  const wrapped = await zfile(async (sink) => await commitLayer(layer, sink, UUIDS), 4096, true);
  assertSame(Buffer.concat([payloadHead(wrapped.length), wrapped, payloadTail(wrapped.length)]), "append/lz4-4k-tar.commit");
});

test("so is one that is committed as the warp layer that it is not", async () => {
  const layer = await openUnsealedWarpLayer(lsmtSource("append/writable_data.zst"), lsmtSource("append/writable_index"));
  assertSame(await zfile(async (sink) => await commitWarpLayer(layer, sink, {}), 4096, true), "append/turboOCIflag.commit.zst");
});

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

test("so are a writable layer and the finished ones below it, and what they show is what the other tool reads", async () => {
  const lowers = [await inZFile(lsmtSource("upper/layer0.commit")), await inZFile(lsmtSource("upper/layer1.commit"))];
  const upper = await openUnsealedLayer(lsmtSource("upper/upper_data"), lsmtSource("upper/upper_index"));
  assertSame(await zfile(async (sink) => await commitLayer(upper, sink, {}), 4096, true), "upper/upper.commit");
  const layers = [...lowers, upper];
  assertSame(await zfile(async (sink) => await mergeLayers(layers, sink, { hasWritable: true }), 4096, false), "upper/merged.commit");
  const shown = await stackLayers(layers).read(0, 128 << 10);
  assert.equal(digestOf(shown), "sha256:c217285e1717ec30f0a35620227a0c89e6d52b92d3cbc59d74a86ce1745e0f33");
});

/** A layer of one sector at each of some places. */
async function smallLayer(virtualSize: number, sectors: readonly number[], value: number): Promise<LsmtLayer> {
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize });
  const mappings = new MappingList();
  for (const sector of sectors) mappings.add(sector, 1, await writer.append(new Uint8Array(512).fill(value)));
  await writer.close(mappings);
  return await openLayer(new MemorySource(sink.bytes()));
}

/** What a merge writes: the identity in its trailer, and what its index says of each piece. */
async function merged(layers: readonly LsmtLayer[], options: MergeOptions): Promise<{ trailer: LsmtRecord; pieces: [number, number][] }> {
  const bytes = await plain(async (sink) => await mergeLayers(layers, sink, options));
  const { trailer, mappings } = await readSealedFile(new MemorySource(bytes), 0);
  return { trailer, pieces: Array.from({ length: mappings.count }, (_, i) => [mappings.firstSector[i], mappings.tag[i]]) };
}

test("tags on disk count finished layers from the uppermost down, and the writable one behind them, whose parent is then the result's", async () => {
  const [base, middle, top] = [
    await smallLayer(1 << 20, [1, 2, 3, 4], 1),
    await smallLayer(1 << 20, [2], 2),
    await smallLayer(1 << 20, [3], 3),
  ];
  const finished = await merged([base, middle, top], {});
  assert.deepEqual(finished.pieces, [
    [1, 2],
    [2, 1],
    [3, 0],
    [4, 2],
  ]);
  assert.equal(finished.trailer.parentUuid, NO_UUID);

  const { data, index } = newFiles(new RecordedDisk(), "upper");
  const upper = await AppendLayer.create(data, index, { virtualSize: 1 << 20, parentUuid: UUIDS.parentUuid });
  await upper.write(4 * 512, new Uint8Array(512).fill(4));
  await upper.flush();
  const written = await merged([base, middle, top, await openUnsealedLayer(data, index)], { hasWritable: true });
  assert.deepEqual(written.pieces, [
    [1, 2],
    [2, 1],
    [3, 0],
    [4, 3],
  ]);
  assert.equal(written.trailer.parentUuid, UUIDS.parentUuid.toUpperCase());
  assert.equal(written.trailer.virtualSize, 1 << 20);

  const alone = await merged([await openUnsealedLayer(data, index)], { hasWritable: true });
  assert.deepEqual([alone.pieces, alone.trailer.parentUuid], [[[4, 0]], UUIDS.parentUuid.toUpperCase()]);
});

test("255 layers merge to one that reads as their stack; more are refused", async () => {
  const layers: LsmtLayer[] = [];
  for (let i = 0; i < 255; i++) layers.push(await smallLayer(1 << 20, [i, 300 + (i % 7), 1000], i));
  const merged = await openLayer(new MemorySource(await plain(async (sink) => await mergeLayers(layers, sink, UUIDS))));
  const before = await stackLayers(layers).read(0, 1 << 20);
  assert.deepEqual(await stackLayers([merged]).read(0, 1 << 20), before);
  assert.equal(before[1000 * 512], 254);
  assert.equal(merged.uuid, UUIDS.uuid);
  await assert.rejects(mergeLayers([...layers, layers[0]], new MemorySink(), {}), { code: "UNSUPPORTED" });
});

test("a commit holds a few pieces in memory at most, however large the layer is", async () => {
  const layer = await append();
  const bytes = 512 << 20;
  let underway = 0;
  let most = 0;
  const data: ByteSource = {
    name: "large",
    size: bytes + 4096,
    read: async (_, length) => {
      underway += length;
      most = Math.max(most, underway);
      return new Uint8Array(length);
    },
    close: async () => {},
  };
  const segments = new MappingList();
  const run = 16320;
  for (let at = 0; at < bytes / 512; at += run) segments.add(at, Math.min(run, bytes / 512 - at), 8 + at);
  const source = { virtualSize: bytes, parentUuid: layer.parentUuid, files: [data], segments };
  let written = 0;
  const sink = {
    write: async (piece: Uint8Array) => {
      written += piece.length;
      underway -= Math.min(underway, piece.length);
    },
  };
  const summary = await commitLayer(source, sink, {});
  assert.equal(written, summary.bytes);
  assert.ok(written > bytes);
  assert.ok(most <= 4 << 20, `${most} bytes at once`);
  assert.equal(summary.segments, Math.ceil(bytes / 512 / run));
});

test("runs end where the other tool ends them: at 16,320 sectors, zeros at whole entries, other layers' data", () => {
  const segments = new MappingList();
  const add = (first: number, sectors: number, mapped: number, zeroed = false, tag = 0): void =>
    segments.add(first, sectors, mapped, zeroed, tag);
  add(0, 16383, 8);
  add(16383, 16383, 8 + 16383);
  add(40_000, 100, 999, true);
  add(40_100, 200, 77, true);
  add(50_000, 64, 8);
  add(50_064, 64, 5000, false, 1);
  const { count, firstSector, sectors, mappedSector, zeroed, tag } = compactedSegments(segments, (from) => from);
  assert.deepEqual(
    Array.from({ length: count }, (_, i) => [firstSector[i], sectors[i], mappedSector[i], zeroed[i], tag[i]]),
    [
      [0, 16320, 8, 0, 0],
      [16320, 63 + 254 * 64, 8 + 16320, 0, 0],
      [16320 + 63 + 254 * 64, 32766 - (16320 + 63 + 254 * 64), 8 + 16320 + 63 + 254 * 64, 0, 0],
      [40_000, 300, 8 + 32766, 1, 0],
      [50_000, 64, 8 + 32766, 0, 0],
      [50_064, 64, 8 + 32766 + 64, 0, 1],
    ],
  );
});

test("a layer of more pieces than an index may have is refused before anything is written", async () => {
  const segments = new MappingList();
  for (let i = 0; i < 1_000_001; i++) segments.add(i * 2, 1, 8 + i);
  const source = { virtualSize: 2 ** 31, parentUuid: UUIDS.uuid, files: [], segments };
  const sink = { write: async () => assert.fail("written to") };
  await assert.rejects(commitLayer(source, sink, {}), { code: "UNSUPPORTED" });
});

test("a sink or a source that fails ends a commit with its error, and no read is left underway", async () => {
  const layer = await append();
  const full = { write: async (bytes: Uint8Array) => (bytes.length > 4096 ? await Promise.reject(new Error("sink is full")) : undefined) };
  await assert.rejects(commitLayer(layer, full, {}), /sink is full/);
  let underway = 0;
  const broken: ByteSource = {
    name: "broken",
    size: layer.files[0].size,
    read: async () => {
      underway++;
      await Promise.resolve();
      underway--;
      throw new Error("disk is broken");
    },
    close: async () => {},
  };
  const source = { virtualSize: layer.virtualSize, parentUuid: layer.parentUuid, segments: layer.segments, files: [broken] };
  await assert.rejects(commitLayer(source, new MemorySink(), {}), /disk is broken/);
  assert.equal(underway, 0);
});
