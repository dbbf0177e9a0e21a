import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { zstdDecompressSync } from "node:zlib";
import * as z from "zod";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource } from "../../bytes/source.ts";
import { compressBlocks, compressInline, type CompressBlocks } from "../../compression/block-codec.ts";
import { LazyError } from "../../errors.ts";
import { openZFile } from "./zfile-reader.ts";
import { ZFileWriter, type ZFileOptions } from "./zfile-writer.ts";

const testdata = new URL("../../../testdata/zfile/", import.meta.url);
const load = (name: string): Uint8Array => readFileSync(new URL(name, testdata));
const golden = z
  .record(z.string(), z.object({ bytes: z.number(), sha256: z.string() }))
  .parse(JSON.parse(Buffer.from(load("golden.json")).toString()));

const sources: Record<string, Uint8Array> = {
  src: zstdDecompressSync(load("src.bin.zst")),
  empty: load("empty.bin"),
  one: load("one.bin"),
  block: load("block.bin"),
  block1: load("block1.bin"),
};

async function written(plain: Uint8Array, options: Partial<ZFileOptions> = {}, step = plain.length): Promise<Uint8Array> {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, { algorithm: "lz4", compress: compressInline, overwriteHeader: false, ...options });
  for (let at = 0; at < plain.length; at += step) await writer.write(plain.subarray(at, at + step));
  const summary = await writer.close();
  const bytes = sink.bytes();
  assert.equal(summary.bytes, bytes.length);
  assert.equal(summary.originalBytes, plain.length);
  bytes.set(summary.header, 0);
  return bytes;
}

for (const name of Object.keys(golden).filter((file) => file.includes(".lz4.") && !file.includes(".tar."))) {
  const [source, , size] = name.split(".");
  test(`LZ4 output is byte for byte that of overlaybd-zfile: ${name}`, async () => {
    const blockSize = size === "zfile" ? 4096 : Number.parseInt(size, 10) * 1024;
    for (const step of [100_000, 4096, 999]) {
      const bytes = await written(sources[source], { blockSize }, step);
      assert.equal(bytes.length, golden[name].bytes);
      assert.equal(createHash("sha256").update(bytes).digest("hex"), golden[name].sha256);
    }
  });
}

test("what is written reads back, with either algorithm and a header that carries everything", async () => {
  for (const algorithm of ["lz4", "zstd"] as const) {
    for (const overwriteHeader of [false, true]) {
      for (const plain of Object.values(sources)) {
        const reader = await openZFile(new MemorySource(await written(plain, { algorithm, overwriteHeader })));
        assert.equal(reader.size, plain.length);
        assert.deepEqual(Buffer.from(await reader.read(0, plain.length)), Buffer.from(plain));
      }
    }
  }
});

/** 10 MiB of which every block differs. */
const large = Buffer.alloc(10 << 20);
for (let at = 0; at < large.length; at += 4) large.writeUInt32LE(((at >>> 12) * 2654435761) >>> 0, at);

test("batches that finish in any order are written in their own", async () => {
  let calls = 0;
  let underway = 0;
  let most = 0;
  const shuffled: CompressBlocks = async (algorithm, input, blockSize) => {
    most = Math.max(most, ++underway);
    const result = compressBlocks(algorithm, input, blockSize);
    for (let turns = (7 * calls++) % 5; turns > 0; turns--) await setImmediate();
    underway--;
    return result;
  };
  assert.deepEqual(await written(large, { compress: shuffled }), await written(large));
  assert.ok(most > 1 && most <= 8, `${most} batches at a time`);
});

test("an error of the compressor or of the sink reaches the caller", async () => {
  const failing: CompressBlocks = async () => await Promise.reject(new LazyError("UNAVAILABLE", "no thread"));
  await assert.rejects(written(large, { compress: failing }), /no thread/);
  await assert.rejects(written(Buffer.from("little"), { compress: failing }), /no thread/);
  for (const room of [0, 1, 3]) {
    let writes = 0;
    const full = {
      write: async () => {
        if (writes++ === room) throw new LazyError("UNAVAILABLE", "disk full");
        await Promise.resolve();
      },
    };
    const writer = new ZFileWriter(full, { algorithm: "lz4", compress: compressInline, overwriteHeader: false });
    await assert.rejects(async () => {
      await writer.write(large);
      await writer.close();
    }, /disk full/);
  }
});

function noise(bytes: number): Buffer {
  let state = 1;
  return Buffer.from(Uint8Array.from({ length: bytes }, () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >>> 16));
}

test("a block that readers could not fetch is refused with what to do", async () => {
  const plain = noise(65536);
  await assert.rejects(
    written(plain, { blockSize: 65536 }),
    (error: LazyError) => error.code === "UNSUPPORTED" && /block 0 of 65536 bytes does not shrink.*32768/.test(error.message),
  );
  const reader = await openZFile(new MemorySource(await written(plain, { blockSize: 32768 })));
  assert.deepEqual(Buffer.from(await reader.read(0, plain.length)), plain);
});

test("calls that overlap, or come after the end or an error, are refused", async () => {
  const writer = new ZFileWriter(new MemorySink(), { algorithm: "lz4", compress: compressInline, overwriteHeader: false });
  const first = writer.write(large);
  await assert.rejects(writer.write(large), (error: LazyError) => error.code === "USAGE");
  await first;
  await writer.close();
  await assert.rejects(writer.close(), (error: LazyError) => error.code === "USAGE");
  await assert.rejects(writer.write(large), (error: LazyError) => error.code === "USAGE");
});

test("odd block sizes are refused", () => {
  for (const blockSize of [0, 512, 5000, 131072, Number.NaN]) {
    assert.throws(
      () => new ZFileWriter(new MemorySink(), { algorithm: "lz4", blockSize, compress: compressInline, overwriteHeader: false }),
      (error: LazyError) => error.code === "USAGE",
    );
  }
});
