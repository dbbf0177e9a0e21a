import assert from "node:assert/strict";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { crc32cRaw } from "../bytes/crc32c.ts";
import { LazyError } from "../errors.ts";
import { BLOCK_CRC_SEED, compressBlocks, compressInline, decompressBlock, storedBound, type BlockAlgorithm } from "./block-codec.ts";

const isCorrupt = (error: unknown) => error instanceof LazyError && error.code === "CORRUPT";
const algorithms: BlockAlgorithm[] = ["lz4", "zstd"];

for (const algorithm of algorithms) {
  test(`${algorithm}: blocks lie back to back, each followed by its crc, and decompress to the input`, () => {
    const input = fc.oneof(
      fc.uint8Array({ maxLength: 20000 }),
      fc.nat(20000).map((bytes) => new Uint8Array(bytes).fill(7)),
    );
    fc.assert(
      fc.property(input, fc.constantFrom(512, 4096, 65536), (plain, blockSize) => {
        const { bytes, storedBytes } = compressBlocks(algorithm, plain, blockSize);
        assert.equal(storedBytes.length, Math.ceil(plain.length / blockSize));
        let at = 0;
        for (const [block, stored] of storedBytes.entries()) {
          const code = bytes.subarray(at, at + stored - 4);
          assert.equal(Buffer.from(bytes).readUInt32LE(at + stored - 4), crc32cRaw(BLOCK_CRC_SEED, code));
          const expected = plain.subarray(block * blockSize, (block + 1) * blockSize);
          assert.ok(stored <= storedBound(expected.length));
          const output = new Uint8Array(expected.length);
          decompressBlock(algorithm, code, output);
          assert.deepEqual(output, new Uint8Array(expected));
          at += stored;
        }
        assert.equal(at, bytes.length);
      }),
      { numRuns: 60 },
    );
  });

  test(`${algorithm}: a block that holds more or less than asked for is corrupt`, () => {
    const { bytes } = compressBlocks(algorithm, new Uint8Array(1000).fill(3), 4096);
    const code = bytes.subarray(0, bytes.length - 4);
    for (const length of [0, 1, 999, 1001, 4096]) assert.throws(() => decompressBlock(algorithm, code, new Uint8Array(length)), isCorrupt);
    for (let cut = 1; cut <= code.length; cut++) {
      assert.throws(() => decompressBlock(algorithm, code.subarray(0, code.length - cut), new Uint8Array(1000)), isCorrupt);
    }
  });
}

test("zstd blocks are whole frames", () => {
  const plain = Buffer.from("a block ".repeat(100));
  const { bytes } = compressBlocks("zstd", plain, 4096);
  assert.deepEqual(zstdDecompressSync(bytes.subarray(0, bytes.length - 4)), plain);
});

test("the asynchronous form gives the same bytes", async () => {
  const plain = Buffer.from("inline ".repeat(3000));
  assert.deepEqual(await compressInline("lz4", plain, 4096), compressBlocks("lz4", plain, 4096));
});
