import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { crc32cRaw } from "../../bytes/crc32c.ts";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource, type ByteSource } from "../../bytes/source.ts";
import { compressBlocks, compressInline } from "../../compression/block-codec.ts";
import { LazyError } from "../../errors.ts";
import { FLAG_DIGEST, recordDigest, ZFILE_RECORD_BYTES, zfileRecord, type ZFileRecord } from "./layout.ts";
import { areBlocksRight, blockLength, decodeBlock, decodeRun, isZFile, openZFile, type ZFileBlocks } from "./zfile-reader.ts";
import { ZFileWriter } from "./zfile-writer.ts";

const testdata = new URL("../../../testdata/zfile/", import.meta.url);
const load = (name: string): Buffer => readFileSync(new URL(name, testdata));
const src = zstdDecompressSync(load("src.bin.zst"));

const hasCode = (code: string) => (error: unknown) => error instanceof LazyError && error.code === code;

async function readAll(bytes: Uint8Array): Promise<Buffer> {
  const reader = await openZFile(new MemorySource(bytes, "file"));
  return Buffer.from(await reader.read(0, reader.size));
}

for (const name of ["one", "block", "block1", "empty"]) {
  for (const algorithm of ["lz4", "zstd"]) {
    test(`reads what overlaybd-zfile wrote: ${name}.${algorithm}`, async () => {
      assert.deepEqual(await readAll(load(`${name}.${algorithm}.zfile`)), load(`${name}.bin`));
    });
  }
}

for (const name of ["src.lz4.4k", "src.lz4.64k", "src.zstd.4k", "src.zstd.64k"]) {
  test(`reads any range of what overlaybd-zfile wrote: ${name}`, async () => {
    const reader = await openZFile(new MemorySource(load(`${name}.zfile`)));
    assert.equal(reader.size, src.length);
    assert.deepEqual(Buffer.from(await reader.read(0, src.length)), src);
    await fc.assert(
      fc.asyncProperty(fc.nat(src.length), fc.nat(100_000), async (offset, length) => {
        const bytes = Math.min(length, src.length - offset);
        assert.deepEqual(Buffer.from(await reader.read(offset, bytes)), src.subarray(offset, offset + bytes));
      }),
      { numRuns: 50 },
    );
    await assert.rejects(reader.read(src.length - 1, 2), hasCode("CORRUPT"));
    await assert.rejects(reader.read(-1, 1), hasCode("CORRUPT"));
  });
}

test("a ZFile is known by its magic", () => {
  assert.equal(isZFile(load("one.lz4.zfile").subarray(0, 24)), true);
  assert.equal(isZFile(load("one.lz4.zfile").subarray(0, 23)), false);
  assert.equal(isZFile(load("src.lz4.tar.zfile")), false);
});

/** A source that notes what is read from it. */
class NotingSource extends MemorySource {
  readonly reads: [offset: number, length: number][] = [];

  override async read(offset: number, length: number): Promise<Uint8Array> {
    this.reads.push([offset, length]);
    return await super.read(offset, length);
  }
}

async function made(plain: Uint8Array, overwriteHeader: boolean): Promise<Buffer> {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, { algorithm: "lz4", compress: compressInline, overwriteHeader });
  await writer.write(plain);
  const { header } = await writer.close();
  const bytes = sink.bytes();
  bytes.set(header, 0);
  return Buffer.from(bytes);
}

test("opening takes two reads, and a range of blocks one", async () => {
  const source = new NotingSource(await made(src, true));
  const reader = await openZFile(source);
  assert.equal(source.reads.length, 2);
  source.reads.length = 0;
  await reader.read(5000, 300_000);
  const { offsets } = reader.blocks;
  assert.deepEqual(source.reads, [[offsets[1], offsets[75] - offsets[1]]]);
});

test("a read of more than 4 MiB of stored blocks is split", async () => {
  let state = 1;
  const noise = Uint8Array.from({ length: 9 << 20 }, () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >>> 16);
  const source = new NotingSource(await made(noise, true));
  const reader = await openZFile(source);
  source.reads.length = 0;
  assert.equal(Buffer.compare(await reader.read(0, noise.length), noise), 0);
  assert.equal(source.reads.length, 3);
  assert.ok(source.reads.every(([, length]) => length <= 4 << 20));
});

test("the blocks' places are plain data from which another thread can decode", async () => {
  const file = load("src.lz4.4k.zfile");
  const { blocks } = await openZFile(new MemorySource(file));
  assert.ok(blocks.offsets.buffer instanceof SharedArrayBuffer);
  const cloned: ZFileBlocks = structuredClone(Object.assign({}, blocks, { offsets: new Float64Array(blocks.offsets) }));
  const last = blocks.offsets.length - 2;
  const output = new Uint8Array(blockLength(cloned, last));
  decodeBlock(cloned, last, file.subarray(cloned.offsets[last], cloned.offsets[last + 1]), output);
  assert.deepEqual(Buffer.from(output), src.subarray(last * 4096));
  const part = new Uint8Array(100_000);
  decodeRun(cloned, 20, 50, file.subarray(cloned.offsets[20], cloned.offsets[50]), 4000, part);
  assert.deepEqual(Buffer.from(part), src.subarray(20 * 4096 + 4000, 20 * 4096 + 104_000));
});

test("a stretch of stored bytes is right when its whole blocks are", async () => {
  const file = load("src.lz4.4k.zfile");
  const { blocks } = await openZFile(new MemorySource(file));
  const { offsets } = blocks;
  const end = offsets[offsets.length - 1];
  fc.assert(
    fc.property(fc.nat(file.length - 1), fc.nat(100_000), fc.nat(file.length - 1), (offset, length, changed) => {
      const bytes = Buffer.from(file.subarray(offset, offset + length));
      assert.equal(areBlocksRight(blocks, offset, bytes), true);
      if (changed < offset || changed >= offset + bytes.length) return;
      bytes[changed - offset] ^= 4;
      const block = offsets.findLastIndex((start) => start <= changed);
      const isWhole = block >= 0 && changed < end && offsets[block] >= offset && offsets[block + 1] <= offset + bytes.length;
      assert.equal(areBlocksRight(blocks, offset, bytes), !isWhole);
    }),
    { numRuns: 2000 },
  );
});

for (const overwriteHeader of [false, true]) {
  test(`every changed byte of a file is noticed, header ${overwriteHeader ? "" : "not "}overwritten`, async () => {
    const plain = src.subarray(0, 9000);
    const file = await made(plain, overwriteHeader);
    for (let at = 0; at < file.length; at++) {
      const damaged = Buffer.from(file);
      damaged[at] ^= 1 << (at % 8);
      await assert.rejects(readAll(damaged), hasCode("CORRUPT"), `byte ${at}`);
    }
  });

  test(`every shortened or lengthened file is noticed, header ${overwriteHeader ? "" : "not "}overwritten`, async () => {
    const file = await made(src.subarray(0, 9000), overwriteHeader);
    for (let length = 0; length < file.length; length += 7) {
      await assert.rejects(readAll(file.subarray(0, length)), hasCode("CORRUPT"), `first ${length} bytes`);
    }
    for (const junk of [1, 4, 512, 1024]) await assert.rejects(readAll(Buffer.concat([file, Buffer.alloc(junk)])), hasCode("CORRUPT"));
  });
}

test("a damaged block is named with its offset and both sums", async () => {
  const file = await made(src, true);
  const { blocks } = await openZFile(new MemorySource(file));
  file[blocks.offsets[3] + 10] ^= 1;
  const reader = await openZFile(new MemorySource(file, "layer.zfile"));
  await reader.read(0, 3 * 4096);
  const message = new RegExp(`^layer\\.zfile: zfile block 3 at ${blocks.offsets[3]}: crc is [0-9a-f]{8}, stored crc is [0-9a-f]{8}$`);
  await assert.rejects(reader.read(3 * 4096, 1), (error: LazyError) => error.code === "CORRUPT" && message.test(error.message));
});

/** Changes fields of the records of a file that keeps digests, or of one that does not. */
function edited(file: Buffer, at: "header" | "trailer" | "both", fields: Partial<ZFileRecord>): Buffer {
  const copy = Buffer.from(file);
  const offsets = at === "both" ? [0, copy.length - ZFILE_RECORD_BYTES] : [at === "header" ? 0 : copy.length - ZFILE_RECORD_BYTES];
  for (const offset of offsets) {
    const record = copy.subarray(offset, offset + ZFILE_RECORD_BYTES);
    zfileRecord.encodeInto(record, fields);
    if (record.readUInt32LE(32) & FLAG_DIGEST) record.writeUInt32LE(recordDigest(record), 28);
  }
  return copy;
}

const contradictions: [name: string, fields: Partial<ZFileRecord>, code: string][] = [
  ["more index entries than readers take", { indexEntries: 1_000_000_001 }, "CORRUPT"],
  ["more index entries than the file has room for", { indexEntries: 4_000_000 }, "CORRUPT"],
  ["more original bytes than blocks", { originalBytes: 4096 * 4 }, "CORRUPT"],
  ["fewer original bytes than blocks", { originalBytes: 4096 }, "CORRUPT"],
  ["an index that begins in the header", { indexOffset: 0 }, "CORRUPT"],
  ["an index that ends before the trailer", { indexOffset: 512 }, "CORRUPT"],
  ["a block size of zero", { blockSize: 0 }, "CORRUPT"],
  ["a block size above 64 KiB", { blockSize: 65537 }, "CORRUPT"],
  ["an unknown algorithm", { algorithm: 3 }, "UNSUPPORTED"],
  ["a dictionary", { useDictionary: 1, dictionaryBytes: 100 }, "UNSUPPORTED"],
  ["a compressed index", { flags: 0x33 }, "UNSUPPORTED"],
];

for (const [name, fields, code] of contradictions) {
  test(`a file whose records agree on ${name} is refused`, async () => {
    for (const overwriteHeader of [false, true]) {
      const file = await made(src.subarray(0, 9000), overwriteHeader);
      await assert.rejects(readAll(edited(file, "both", fields)), hasCode(code));
    }
  });
}

test("sizes beyond 2^53 are refused", async () => {
  for (const at of [47, 55, 63]) {
    const file = await made(src.subarray(0, 9000), true);
    file[at] = 0x80;
    await assert.rejects(readAll(edited(file, "header", {})), hasCode("CORRUPT"));
  }
});

test("records that differ are refused, whichever was changed", async () => {
  const file = await made(src.subarray(0, 9000), true);
  for (const at of ["header", "trailer"] as const) {
    for (const fields of [{ blockSize: 8192 }, { algorithm: 2 }, { verify: 0 }, { originalBytes: 8999 }, { indexCrc: 1 }]) {
      await assert.rejects(readAll(edited(file, at, fields)), hasCode("CORRUPT"), `${at} ${JSON.stringify(fields)}`);
    }
  }
});

test("an index whose entries do not fill the space before it is refused", async () => {
  const file = await made(src.subarray(0, 9000), true);
  const record = zfileRecord.decode(file);
  const index = file.subarray(record.indexOffset, record.indexOffset + record.indexEntries * 4);
  for (const stored of [0, 4, 5, 4096 + 517, 0xffffffff]) {
    index.writeUInt32LE(stored, 4);
    await assert.rejects(readAll(edited(file, "both", { indexCrc: crc32cRaw(0, index) })), hasCode("CORRUPT"), `entry of ${stored}`);
  }
});

test("files of early writers, with garbage where nothing was defined, are read", async () => {
  const file = Buffer.from(load("block1.lz4.zfile"));
  const trailer = file.length - ZFILE_RECORD_BYTES;
  for (const at of [0, trailer]) {
    const kind = at === 0 ? 0x03 : 0x06;
    file.writeUInt32LE((0xa4640b40 | kind) >>> 0, at + 32); // digest bit clear, the upper bits anything
    file.writeUInt32LE(0x7ffe, at + 36);
    file.writeUInt32LE(0xdeadbeef, at + 28); // digest
    file.writeUInt32LE(0xdeadbeef, at + 64); // index crc
    file.fill(0xa5, at + 89, at + 512);
  }
  file.fill(0xff, 40, 64); // the header's index fields
  assert.deepEqual(await readAll(file), load("block1.bin"));
});

test("blocks without crc are read", async () => {
  const plain = src.subarray(0, 10_000);
  const { bytes, storedBytes } = compressBlocks("lz4", plain, 4096);
  const blocks: Uint8Array[] = [];
  const index = Buffer.alloc(storedBytes.length * 4);
  let at = 0;
  for (const [block, stored] of storedBytes.entries()) {
    blocks.push(bytes.subarray(at, at + stored - 4));
    index.writeUInt32LE(stored - 4, block * 4);
    at += stored;
  }
  const data = Buffer.concat(blocks);
  const file = Buffer.concat([await made(plain, true).then((made) => made.subarray(0, 512)), data, index, Buffer.alloc(512)]);
  file.copy(file, file.length - 512, 0, 512);
  const fields = { verify: 0, indexOffset: 512 + data.length, indexCrc: crc32cRaw(0, index) };
  const whole = edited(edited(edited(file, "trailer", { flags: 0x16 }), "header", fields), "trailer", fields);
  assert.deepEqual(await readAll(whole), plain);
});

test("stored blocks of more than 64 KiB are read", async () => {
  let state = 1;
  const plain = Buffer.from(Uint8Array.from({ length: 65536 }, () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >>> 16));
  const { bytes, storedBytes } = compressBlocks("lz4", plain, 65536);
  assert.ok(storedBytes[0] > 65536);
  const index = Buffer.from(storedBytes.buffer);
  const small = await made(plain.subarray(0, 4096), true);
  const file = Buffer.concat([small.subarray(0, 512), bytes, index, small.subarray(small.length - 512)]);
  const fields = {
    blockSize: 65536,
    originalBytes: 65536,
    indexOffset: 512 + bytes.length,
    indexEntries: 1,
    indexCrc: crc32cRaw(0, index),
  };
  assert.deepEqual(await readAll(edited(file, "both", fields)), plain);
});

test("files damaged in several places are refused or read as they were", async () => {
  const plain = src.subarray(0, 20_000);
  const files = [await made(plain, true), await made(plain, false)];
  // With checksums in place almost nothing gets through; without them the structure itself has to hold.
  const bare = files.map((file) => {
    const copy = Buffer.from(file);
    for (const at of [32, copy.length - 512 + 32]) copy[at] &= ~FLAG_DIGEST;
    return copy;
  });
  const flip = fc.record({
    at: fc.oneof(fc.nat(600), fc.integer({ min: -600, max: -1 }), fc.nat(20_000)),
    value: fc.integer({ min: 1, max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...files, ...bare), fc.array(flip, { minLength: 1, maxLength: 5 }), async (file, flips) => {
      const damaged = Buffer.from(file);
      for (const { at, value } of flips) damaged[(at + damaged.length) % damaged.length] ^= value;
      try {
        const source: ByteSource = new MemorySource(damaged);
        const reader = await openZFile(source);
        assert.deepEqual(Buffer.from(await reader.read(0, Math.min(reader.size, plain.length))), plain.subarray(0, reader.size));
      } catch (error) {
        if (!(error instanceof LazyError)) throw error;
        assert.ok(error.code === "CORRUPT" || error.code === "UNSUPPORTED", error.message);
      }
    }),
    { numRuns: 1500 },
  );
});
