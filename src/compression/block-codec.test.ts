import assert from "node:assert/strict";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { crc32cRaw } from "../bytes/crc32c.ts";
import { LazyError } from "../errors.ts";
import { compressBlocks, compressInline, decodeBlocks, storedBound, type BlockAlgorithm } from "./block-codec.ts";
import { BLOCK_CRC_SEED } from "./lz4.ts";

const isCorrupt = (error: unknown) => error instanceof LazyError && error.code === "CORRUPT";
const algorithms: BlockAlgorithm[] = ["lz4", "zstd"];

/** Decodes what `compressBlocks` made, or a part of it: `length` bytes from `skip` on. */
function decode(
  algorithm: BlockAlgorithm,
  bytes: Uint8Array,
  storedBytes: Iterable<number>,
  size: Size,
  skip = 0,
  length = size.bytes,
): Uint8Array {
  const offsets = [1000];
  for (const stored of storedBytes) offsets.push(offsets.at(-1)! + stored);
  const lastBytes = size.bytes - (offsets.length - 2) * size.block;
  const output = new Uint8Array(length);
  const whereIs = (block: number): string => `block ${block} at ${offsets[block]}`;
  const run = { algorithm, blockSize: size.block, lastBytes, verify: true, bytes, offsets: Float64Array.from(offsets), whereIs };
  decodeBlocks(run, skip, output);
  return output;
}

interface Size {
  readonly bytes: number;
  readonly block: number;
}

const noise = (bytes: number): Uint8Array => Uint8Array.from({ length: bytes }, (_, i) => Math.imul(i * i + 7, 2654435761) >>> 22);

for (const algorithm of algorithms) {
  test(`${algorithm}: blocks lie back to back, each followed by its crc, and decode to the input`, () => {
    const input = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 20000 }),
      fc.integer({ min: 1, max: 20000 }).map((bytes) => new Uint8Array(bytes).fill(7)),
    );
    fc.assert(
      fc.property(input, fc.constantFrom(512, 4096, 65536), fc.nat(), fc.nat(), (plain, blockSize, skip, length) => {
        const { bytes, storedBytes } = compressBlocks(algorithm, plain, blockSize);
        assert.equal(bytes.length, bytes.buffer.byteLength - bytes.byteOffset, "a buffer of no more than is needed");
        assert.equal(storedBytes.length, Math.ceil(plain.length / blockSize));
        let at = 0;
        for (const [block, stored] of storedBytes.entries()) {
          const code = bytes.subarray(at, at + stored - 4);
          assert.equal(Buffer.from(bytes).readUInt32LE(at + stored - 4), crc32cRaw(BLOCK_CRC_SEED, code));
          assert.ok(stored <= storedBound(Math.min(blockSize, plain.length - block * blockSize)));
          at += stored;
        }
        assert.equal(at, bytes.length);
        const size = { bytes: plain.length, block: blockSize };
        assert.deepEqual(decode(algorithm, bytes, storedBytes, size), new Uint8Array(plain));
        const from = skip % plain.length;
        const part = length % (plain.length - from + 1);
        assert.deepEqual(decode(algorithm, bytes, storedBytes, size, from, part), new Uint8Array(plain.subarray(from, from + part)));
      }),
      { numRuns: 60 },
    );
  });

  test(`${algorithm}: a block that holds more or less than asked for is corrupt`, () => {
    const { bytes, storedBytes } = compressBlocks(algorithm, new Uint8Array(1000).fill(3), 4096);
    for (const length of [0, 1, 999, 1001, 4096]) {
      assert.throws(() => decode(algorithm, bytes, storedBytes, { bytes: length, block: 4096 }), isCorrupt);
    }
    for (let cut = 1; cut <= bytes.length - 4; cut++) {
      const code = bytes.subarray(0, bytes.length - 4 - cut);
      const crc = new Uint8Array(4);
      new DataView(crc.buffer).setUint32(0, crc32cRaw(BLOCK_CRC_SEED, code), true);
      const stored = Buffer.concat([code, crc]);
      assert.throws(() => decode(algorithm, stored, [stored.length], { bytes: 1000, block: 4096 }), isCorrupt, `${cut} bytes cut`);
    }
  });

  test(`${algorithm}: of many blocks the bad one is named, with both sums`, () => {
    const size = { bytes: 300_000, block: 4096 };
    const { bytes, storedBytes } = compressBlocks(algorithm, noise(size.bytes), size.block);
    const bad = 61;
    const at = storedBytes.subarray(0, bad).reduce((sum, stored) => sum + stored, 0);
    bytes[at + 9] ^= 4;
    const found = crc32cRaw(BLOCK_CRC_SEED, bytes, at, at + storedBytes[bad] - 4)
      .toString(16)
      .padStart(8, "0");
    const stored = Buffer.from(bytes)
      .readUInt32LE(at + storedBytes[bad] - 4)
      .toString(16)
      .padStart(8, "0");
    const message = `block ${bad} at ${1000 + at}: crc is ${found}, stored crc is ${stored}`;
    assert.throws(() => decode(algorithm, bytes, storedBytes, size), { code: "CORRUPT", message });
  });

  test(`${algorithm}: sizes that no block has are refused before anything is read`, () => {
    for (const sizes of [
      [4, 100],
      [-5, 109],
      [100, Number.NaN],
      [5000, 100],
      [1e10, 100],
    ]) {
      const total = sizes[0] + sizes[1];
      const bytes = new Uint8Array(total < 10000 ? total : 104);
      const failed = (error: unknown): boolean => isCorrupt(error) || error instanceof RangeError;
      assert.throws(() => decode(algorithm, bytes, sizes, { bytes: 8192, block: 4096 }), failed, String(sizes));
    }
  });

  test(`${algorithm}: more than one call of the kernel takes is cut up, and decoded in any block size`, () => {
    const plain = noise(2_300_000);
    for (const block of [100, 5000, 65536]) {
      const whole = compressBlocks(algorithm, algorithm === "lz4" ? plain : plain.subarray(0, 50_000), block);
      const size = { bytes: algorithm === "lz4" ? plain.length : 50_000, block };
      assert.deepEqual(decode(algorithm, whole.bytes, whole.storedBytes, size), plain.subarray(0, size.bytes));
    }
  });
}

test("what comes out goes into a buffer that has room, and otherwise into one of its own", () => {
  const plain = noise(300_001);
  const expected = compressBlocks("lz4", plain, 4096);
  const [roomy, small] = [new ArrayBuffer(400_000), new ArrayBuffer(1000)];
  const found = compressBlocks("lz4", plain, 4096, roomy);
  assert.equal(found.bytes.buffer, roomy);
  assert.deepEqual(found, expected);
  assert.notEqual(compressBlocks("lz4", plain, 4096, small).bytes.buffer, small);
});

test("block sizes that LZ4 cannot take are refused", () => {
  for (const blockSize of [0, -1, 1.5, 65537, Number.NaN])
    assert.throws(() => compressBlocks("lz4", new Uint8Array(9), blockSize), RangeError);
});

test("zstd blocks are whole frames", () => {
  const plain = Buffer.from("a block ".repeat(100));
  const { bytes } = compressBlocks("zstd", plain, 4096);
  assert.deepEqual(zstdDecompressSync(bytes.subarray(0, bytes.length - 4)), plain);
});

test("the asynchronous form gives the same bytes", async () => {
  const plain = Buffer.from("inline ".repeat(3000));
  assert.deepEqual(await compressInline("lz4", plain, 4096), compressBlocks("lz4", plain, 4096));
});
