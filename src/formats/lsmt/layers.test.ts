import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import * as z from "zod";
import { lsmtBytes, SparseSource } from "../../../test/support/lsmt-files.ts";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource, SubSource, type ByteSource } from "../../bytes/source.ts";
import { compressInline } from "../../compression/block-codec.ts";
import { LazyError } from "../../errors.ts";
import { openTarPayload, payloadHead, payloadTail } from "../../tar/payload.ts";
import { isZFile, openZFile } from "../zfile/zfile-reader.ts";
import { ZFileWriter } from "../zfile/zfile-writer.ts";
import { lsmtRecord } from "./layout.ts";
import { openLayer, type LsmtLayer } from "./lsmt-reader.ts";
import { LsmtWriter } from "./lsmt-writer.ts";
import { MappingList } from "./mapping-list.ts";
import { stackLayers, type StackSource } from "./stack.ts";
import { openUnsealedLayer } from "./unsealed-layer.ts";

/** Opens a layer in whatever it is wrapped in. */
async function open(source: ByteSource): Promise<LsmtLayer> {
  const payload = await openTarPayload(source);
  const zfile = payload.size >= 24 && isZFile(await payload.read(0, 24));
  return await openLayer(zfile ? await openZFile(payload) : payload);
}

async function openFile(name: string): Promise<LsmtLayer> {
  return await open(new MemorySource(lsmtBytes(name), name));
}

const GIB = 1 << 30;

async function sha256Of(device: ByteSource): Promise<string> {
  const hash = createHash("sha256");
  for (let at = 0; at < device.size; at += 1 << 22) hash.update(await device.read(at, Math.min(1 << 22, device.size - at)));
  return hash.digest("hex");
}

/** A digest of what is not zero: equal for devices of equal size and content, and quick where most is a hole. */
async function contentOf(device: StackSource): Promise<string> {
  const hash = createHash("sha256").update(`${device.size}`);
  const { segments } = device;
  const blocks = new Set<number>();
  for (let i = 0; i < segments.count; i++) {
    const end = segments.firstSector[i] + segments.sectors[i];
    for (let sector = segments.firstSector[i] & ~7; sector < end; sector += 8) blocks.add(sector);
  }
  for (const sector of [...blocks].sort((a, b) => a - b)) {
    const bytes = await device.read(sector * 512, 4096);
    if (bytes.some((byte) => byte !== 0)) hash.update(`,${sector}:`).update(bytes);
  }
  return hash.digest("hex");
}

/** The 1 GiB device of an ext4 filesystem with a small tar applied, and of a second layer on top of it. */
const ONE_LAYER = "affa64c6c6691f5ce1dedd01552b0271b3ade50bf60bbfd91172dc7464b3c9e5";
const TWO_LAYERS = "2d538348e1abf80b9a658d820432ff04774d18df6b761567ba28a8ceec9ac35d";

const oneLayerContent = (async () => {
  const device = stackLayers([await openFile("append/lz4-4k-tar.commit")]);
  assert.equal(device.size, GIB);
  assert.equal(await sha256Of(device), ONE_LAYER);
  return await contentOf(device);
})();

const twoLayerContent = (async () => {
  const device = stackLayers([await openFile("append/merged.commit")]);
  assert.equal(await sha256Of(device), TWO_LAYERS);
  return await contentOf(device);
})();

const committed = [
  ...["plain.commit.zst", "plain-uuid-parent-tag.commit.zst", "turboOCIflag.commit.zst", "sealed.zst"].map((name) => `append/${name}`),
  ...["lz4-4k", "lz4-4k-tar", "lz4-8k", "lz4-16k", "lz4-32k", "lz4-64k"].map((name) => `append/${name}.commit`),
  ...["zstd-4k", "zstd-4k-tar", "zstd-8k", "zstd-16k", "zstd-32k", "zstd-64k"].map((name) => `append/${name}.commit`),
  ...["commit-sealed-lz4", "lz4-4k-tar", "lz4-64k", "zstd-4k", "zstd-4k-tar"].map((name) => `sparse/${name}.commit`),
  "sparse/plain.commit.zst",
];
for (const name of committed) {
  test(`reads what the reference tools made: ${name}`, async () => {
    assert.equal(await contentOf(stackLayers([await openFile(name)])), await oneLayerContent);
  });
}

test("a stack of two layers reads as the layer that the reference tools merged of them", async () => {
  for (const lower of ["append/lz4-4k.commit", "append/plain.commit.zst", "sparse/zstd-4k.commit"]) {
    const stack = stackLayers([await openFile(lower), await openFile("append/second.commit")]);
    assert.equal(await contentOf(stack), await twoLayerContent, lower);
  }
  assert.equal(await contentOf(stackLayers([await openFile("sparse/merged.commit")])), await twoLayerContent);
});

test("uuids and the user tag are read", async () => {
  const layer = await openFile("append/plain-uuid-parent-tag.commit.zst");
  assert.equal(layer.uuid, "11111111-2222-3333-4444-555555555555");
  assert.equal(layer.parentUuid, "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE");
  assert.equal(layer.userTag, "user tag: hello fixture");
  const [layer1, layer2] = await Promise.all([openFile("stack-layer1.commit"), openFile("stack-layer2.commit")]);
  assert.equal(layer2.parentUuid, layer1.uuid);
  assert.equal(layer1.virtualSize, 64 * GIB);
});

test("every mapped byte of layers for a 64 GiB device is readable", async () => {
  for (const name of ["stack-layer1.commit", "stack-layer2.commit"]) {
    const layer = await openFile(name);
    const { segments } = layer;
    for (let i = 0; i < segments.count; i++) {
      if (!segments.zeroed[i]) await layer.files[0].read(segments.mappedSector[i] * 512, segments.sectors[i] * 512);
    }
  }
});

test("the base layer of 2021, whose headers hold garbage, is read", async () => {
  const tar = gunzipSync(lsmtBytes("ext4_64.tar.gz"));
  const zfile = await openZFile(new SubSource(new MemorySource(tar), 512, 4_737_695));
  assert.equal(zfile.size, 541_937_664);
  assert.equal(zfile.blocks.offsets.length, 132_309 + 1);
  const device = stackLayers([await openLayer(zfile)]);
  assert.equal(device.size, 64 * GIB);
  const superblock = Buffer.from(await device.read(1024, 1024));
  assert.equal(superblock.readUInt16LE(56), 0xef53);
  assert.equal(superblock.readUInt32LE(4) * 4096, 64 * GIB);
  for (let i = 0; i < device.segments.count; i += 97) {
    await device.read(device.segments.firstSector[i] * 512, device.segments.sectors[i] * 512);
  }
});

test("a writable append-only layer is replayed from its index", async () => {
  const opened = await openUnsealedLayer(
    new MemorySource(lsmtBytes("append/writable_data.zst"), "data"),
    new MemorySource(lsmtBytes("append/writable_index"), "index"),
  );
  assert.equal(await contentOf(stackLayers([opened])), await oneLayerContent);
  const empty = await openUnsealedLayer(
    new MemorySource(lsmtBytes("append/empty_data.zst")),
    new MemorySource(lsmtBytes("append/empty_index")),
  );
  assert.equal(empty.segments.count, 0);
  assert.equal(empty.virtualSize, GIB);
  const formatted = await openUnsealedLayer(
    new MemorySource(lsmtBytes("append/mkfsonly_data.zst")),
    new MemorySource(lsmtBytes("append/mkfsonly_index")),
  );
  assert.equal(Buffer.from(await stackLayers([formatted]).read(1024, 1024)).readUInt16LE(56), 0xef53);
});

test("a writable sparse layer maps what its file has data for", async () => {
  const source = new SparseSource("writable_data");
  const layer = await openUnsealedLayer(source, undefined, source.extents);
  assert.equal(await contentOf(stackLayers([layer])), await oneLayerContent);
  const empty = new SparseSource("empty_data");
  assert.equal((await openUnsealedLayer(empty, undefined, empty.extents)).segments.count, 0);
  const formatted = new SparseSource("mkfsonly_data");
  const device = stackLayers([await openUnsealedLayer(formatted, undefined, formatted.extents)]);
  assert.equal(Buffer.from(await device.read(1024, 1024)).readUInt16LE(56), 0xef53);
  // A whole device written at once is one extent, longer than a mapping can be.
  const whole = await openUnsealedLayer(source, undefined, [{ offset: 0, length: source.size }]);
  assert.equal(whole.segments.count, Math.ceil(GIB / 512 / 16383));
  assert.equal(Buffer.compare(await stackLayers([whole]).read(0, 1 << 20), await stackLayers([layer]).read(0, 1 << 20)), 0);
});

test("a sparse layer that was sealed in place is read", async () => {
  const layer = await openLayer(new SparseSource("sealed_data"));
  assert.equal(await contentOf(stackLayers([layer])), await oneLayerContent);
});

test("a writable layer without what it needs, or with another's index, is refused", async () => {
  const data = (bytes = lsmtBytes("append/writable_data.zst")) => new MemorySource(bytes, "data");
  const index = (bytes = lsmtBytes("append/writable_index")) => new MemorySource(bytes, "index");
  await assert.rejects(openUnsealedLayer(data(), undefined), { code: "USAGE" });
  await assert.rejects(openUnsealedLayer(new SparseSource("writable_data"), undefined), { code: "USAGE" });
  await assert.rejects(openUnsealedLayer(index(), index()), { code: "CORRUPT" });
  await assert.rejects(openUnsealedLayer(data(), data()), { code: "CORRUPT" });
  await assert.rejects(openUnsealedLayer(data(), index(lsmtBytes("append/empty_index"))), /belongs to layer/);
  await assert.rejects(openUnsealedLayer(data(lsmtBytes("append/writable_data.zst").subarray(0, 100_000)), index()), /maps to \[/);
  const late = lsmtBytes("append/writable_index");
  late.writeUInt32LE(8192, 32);
  await assert.rejects(openUnsealedLayer(data(), index(late)), /begins at 8192, expected 4096/);
  await assert.rejects(openLayer(data()), { code: "CORRUPT" });
});

test("an index record that was torn off is not there yet", async () => {
  const index = lsmtBytes("append/writable_index");
  const torn = await openUnsealedLayer(
    new MemorySource(lsmtBytes("append/writable_data.zst")),
    new MemorySource(index.subarray(0, index.length - 5)),
  );
  const shorter = await openUnsealedLayer(
    new MemorySource(lsmtBytes("append/writable_data.zst")),
    new MemorySource(index.subarray(0, index.length - 16)),
  );
  assert.equal(await contentOf(stackLayers([torn])), await contentOf(stackLayers([shorter])));
});

test("a layer of a turboOCI image is refused with the reason", async () => {
  await assert.rejects(openFile("turbo.fs.meta"), (error: LazyError) => error.code === "UNSUPPORTED" && /turboOCI/.test(error.message));
});

const damagedFiles = z
  .array(
    z.object({
      name: z.string(),
      base: z.string(),
      bytes: z.number(),
      edits: z.array(z.object({ at: z.number(), hex: z.string() })),
      appended: z.string().optional(),
      sha256: z.string(),
      /** What the reference's reader does with the file. */
      reference: z.string(),
    }),
  )
  .parse(JSON.parse(lsmtBytes("damaged.json").toString()));

for (const file of damagedFiles) {
  test(`damaged file ${file.name} is refused (the reference ${file.reference})`, async () => {
    const bytes = Buffer.concat([lsmtBytes(file.base), Buffer.from(file.appended ?? "", "hex")]).subarray(0, file.bytes);
    for (const { at, hex } of file.edits) bytes.write(hex, at, "hex");
    assert.equal(createHash("sha256").update(bytes).digest("hex"), file.sha256);
    await assert.rejects(open(new MemorySource(bytes, file.name)), (error: LazyError) => {
      return error.code === "CORRUPT" && error.message.startsWith(`${file.name}: `);
    });
  });
}

test("our ZFile of a committed layer is byte for byte the reference's, in the tar and out of it", async () => {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, { algorithm: "lz4", blockSize: 4096, compress: compressInline, overwriteHeader: true });
  await writer.write(lsmtBytes("append/plain.commit.zst"));
  const { header } = await writer.close();
  const bytes = sink.bytes();
  bytes.set(header, 0);
  assert.equal(Buffer.compare(bytes, lsmtBytes("append/lz4-4k.commit")), 0);

  const wrapped = lsmtBytes("append/lz4-4k-tar.commit");
  const payload = await openTarPayload(new MemorySource(wrapped));
  const again = Buffer.concat([payloadHead(payload.size), await payload.read(0, payload.size), payloadTail(payload.size)]);
  assert.equal(Buffer.compare(again, wrapped), 0);
});

test("a layer written again with its blocks in random order reads the same, and opens in few reads", async () => {
  const layer = await openFile("append/lz4-4k.commit");
  const device = stackLayers([layer]);
  const blocks: number[] = [];
  for (let i = 0; i < layer.segments.count; i++) {
    const end = layer.segments.firstSector[i] + layer.segments.sectors[i];
    for (let at = layer.segments.firstSector[i]; at < end; at += 8) blocks.push(at);
  }
  let state = 7;
  const random = (below: number) => ((state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >>> 8) % below;
  for (let i = blocks.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [blocks[i], blocks[j]] = [blocks[j], blocks[i]];
  }
  const sink = new MemorySink();
  const zfile = new ZFileWriter(sink, { algorithm: "lz4", compress: compressInline, overwriteHeader: false });
  const writer = new LsmtWriter(zfile, { virtualSize: GIB });
  const mappings = new MappingList();
  for (const first of blocks) {
    const segment = layer.segments.find(first);
    const sectors = Math.min(8, layer.segments.firstSector[segment] + layer.segments.sectors[segment] - first);
    mappings.add(first, sectors, await writer.append(await device.read(first * 512, sectors * 512)));
  }
  await writer.close(mappings);
  await zfile.close();
  const again = await open(new MemorySource(sink.bytes()));
  assert.ok(again.segments.count > layer.segments.count);
  assert.equal(await contentOf(stackLayers([again])), await oneLayerContent);
});

test("every field that a layer states twice is held against the other", async () => {
  const plain = lsmtBytes("append/plain.commit.zst");
  for (const [at, what] of [
    [48, "virtualSize"],
    [56, "uuid"],
    [93, "parentUuid"],
    [132, "version"],
    [133, "subVersion"],
    [134, "userTag"],
  ] as const) {
    for (const base of [0, plain.length - 4096]) {
      const damaged = Buffer.from(plain);
      damaged[base + at] ^= 0x11;
      await assert.rejects(openLayer(new MemorySource(damaged)), new RegExp(`differ in ${what}`));
    }
  }
});

test("impossible trailers and mappings are refused", async () => {
  const plain = lsmtBytes("append/plain.commit.zst");
  const trailerAt = plain.length - 4096;
  const { indexOffset } = lsmtRecord.decode(plain, trailerAt);
  const edits: [name: string, edit: (bytes: Buffer) => void][] = [
    ["more entries than readers take", (bytes) => bytes.writeUInt32LE(1_000_001, trailerAt + 40)],
    ["an index offset beyond 2^53", (bytes) => bytes.writeUInt8(0x80, trailerAt + 39)],
    ["an index in the header", (bytes) => bytes.writeUInt32LE(0, trailerAt + 32)],
    ["an index far before the trailer", (bytes) => bytes.writeUInt32LE(0, trailerAt + 40)],
    ["a mapping into the header", (bytes) => bytes.writeUInt32LE(7, indexOffset + 8)],
    ["a mapping beyond the data", (bytes) => bytes.writeUInt32LE(indexOffset / 512, indexOffset + 8)],
    ["a mapping far beyond the data", (bytes) => bytes.writeUInt8(0x7f, indexOffset + 14)],
    ["a mapping without length", (bytes) => bytes.fill(0, indexOffset + 6, indexOffset + 8)],
    ["mappings that overlap", (bytes) => bytes.copy(bytes, indexOffset + 16, indexOffset, indexOffset + 8)],
  ];
  for (const [name, edit] of edits) {
    const bytes = Buffer.from(plain);
    edit(bytes);
    await assert.rejects(openLayer(new MemorySource(bytes)), { code: "CORRUPT" }, name);
  }
});

test("layers damaged in records and index are refused, or their device is readable", async () => {
  const plain = lsmtBytes("append/plain.commit.zst");
  const trailerAt = plain.length - 4096;
  const { indexOffset } = lsmtRecord.decode(plain, trailerAt);
  const place = fc.oneof(
    fc.nat(140),
    fc.integer({ min: trailerAt, max: trailerAt + 140 }),
    fc.integer({ min: indexOffset, max: indexOffset + 15 * 16 }),
  );
  const flip = fc.record({ at: place, value: fc.integer({ min: 1, max: 255 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(flip, { minLength: 1, maxLength: 3 }), fc.nat(GIB - 4096), async (flips, offset) => {
      const undo = flips.map(({ at }) => [at, plain[at]] as const);
      for (const { at, value } of flips) plain[at] ^= value;
      try {
        const device = stackLayers([await openLayer(new MemorySource(plain))]);
        assert.equal((await device.read(Math.min(offset, device.size - 4096), 4096)).length, 4096);
      } catch (error) {
        if (!(error instanceof LazyError)) throw error;
        assert.ok(error.code === "CORRUPT" || error.code === "UNSUPPORTED", error.message);
      } finally {
        for (const [at, byte] of undo.reverse()) plain[at] = byte;
      }
    }),
    { numRuns: 1000 },
  );
});

test("random indexes of a writable layer replay or are refused", async () => {
  const head = lsmtBytes("append/writable_index").subarray(0, 4096);
  const data = lsmtBytes("append/writable_data.zst");
  const word = fc.oneof(fc.nat(5000), fc.nat());
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(word, word, word, word), { maxLength: 30 }), async (entries) => {
      const index = Buffer.alloc(entries.length * 16);
      for (const [i, words] of entries.entries()) {
        for (const [j, value] of words.entries()) index.writeUInt32LE(value >>> (j % 2 === 1 && value < 5000 ? 13 : 0), i * 16 + j * 4);
        if (i % 2 === 0) index.writeUInt32LE((1 + (words[1] % 50)) * 2 ** 18, i * 16 + 4);
      }
      try {
        const layer = await openUnsealedLayer(new MemorySource(data), new MemorySource(Buffer.concat([head, index])));
        await stackLayers([layer]).read(0, 1 << 16);
      } catch (error) {
        if (!(error instanceof LazyError && error.code === "CORRUPT")) throw error;
      }
    }),
    { numRuns: 300 },
  );
});
