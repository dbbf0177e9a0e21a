import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { referenceCompress, referenceDecompress } from "../../test/support/lz4-reference.ts";
import { crc32cRaw } from "../bytes/crc32c.ts";
import { KernelModule, type KernelNumber } from "./kernel-module.ts";
import { LZ4_WASM } from "./kernels/lz4-wasm.ts";

/*
 * The kernel itself, in a memory that a test lays out, against the reference: nothing but its areas is ever changed.
 */

interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly PLAIN: KernelNumber;
  readonly SLACK: KernelNumber;
  readonly crc32c: (seed: number, start: number, end: number) => number;
  readonly compressBlocks: (plain: number, bytes: number, block: number, seed: number, stored: number, sizes: number) => number;
  readonly decodeBlocks: (
    stored: number,
    sizes: number,
    count: number,
    verify: boolean,
    seed: number,
    plain: number,
    block: number,
    last: number,
  ) => number;
}

const SEED = 100007;
const kernel = new KernelModule(LZ4_WASM).instantiate() as Kernel;
const memory = new Uint8Array(kernel.memory.buffer);
const slack = kernel.SLACK.value;
/** What the kernel looks up, and has before every call: for sums 16 KiB, for matches 16 KiB, for repeats 16 × 17 bytes. */
const TABLE_BYTES = (16 << 10) + (16 << 10) + 16 * 17;
const GUARD = 0xa7;
/** Areas of a test: the first begins behind the kernel's tables, each has a guard behind it, in all they have 800 KiB. */
const FIRST = kernel.PLAIN.value + 64;
const TEST_BYTES = 800 << 10;
const testArea = memory.subarray(FIRST - 64, FIRST + TEST_BYTES);

/** Puts guards everywhere and gives areas of the given sizes, multiples of 4 apart. */
function layOut(...sizes: number[]): number[] {
  testArea.fill(GUARD);
  let at = FIRST;
  return sizes.map((bytes) => {
    const start = at;
    at = (at + bytes + slack + 64 + 3) & ~3;
    assert.ok(at <= FIRST + TEST_BYTES);
    return start;
  });
}

/** Every guard is whole: all of the test's memory but the given areas with their slack. */
function checkGuards(...areas: [start: number, bytes: number][]): void {
  let from = FIRST - 64;
  for (const [start, bytes] of [...areas, [FIRST + TEST_BYTES, 0] as const]) {
    const guard = memory.subarray(from, start);
    assert.equal(Buffer.compare(guard, Buffer.alloc(guard.length, GUARD)), 0, `written outside: in [${from}, ${start})`);
    from = start + bytes + slack;
  }
}

interface Batch {
  readonly stored: Uint8Array;
  readonly sizes: Uint32Array;
}

function compress(plain: Uint8Array, blockBytes: number): Batch {
  const blocks = Math.ceil(plain.length / blockBytes);
  const bound = blocks * (blockBytes + Math.floor(blockBytes / 255) + 20);
  const [input, output, sizes] = layOut(plain.length, bound, blocks * 4);
  memory.set(plain, input);
  const tables = memory.slice(0, 16384);
  const end = kernel.compressBlocks(input, plain.length, blockBytes, SEED, output, sizes);
  assert.ok(end - output <= bound);
  checkGuards([input, plain.length], [output, bound], [sizes, blocks * 4 - slack]);
  assert.deepEqual(memory.subarray(input, input + plain.length), plain, "the input stays");
  assert.equal(Buffer.compare(memory.subarray(0, 16384), tables), 0, "the sums' tables stay");
  return { stored: memory.slice(output, end), sizes: new Uint32Array(memory.slice(sizes, sizes + blocks * 4).buffer) };
}

/** Undefined when a block is bad, else what the blocks hold. */
function decode({ stored, sizes }: Batch, verify: boolean, blockBytes: number, bytes: number): Uint8Array | undefined {
  const [input, sizesAt, output] = layOut(stored.length, sizes.byteLength, bytes);
  memory.set(stored, input);
  memory.set(new Uint8Array(sizes.buffer, sizes.byteOffset, sizes.byteLength), sizesAt);
  const tables = memory.slice(0, TABLE_BYTES);
  const last = bytes - (sizes.length - 1) * blockBytes;
  const good = kernel.decodeBlocks(input, sizesAt, sizes.length, verify, SEED, output, blockBytes, last);
  checkGuards([input, stored.length - slack], [sizesAt, sizes.byteLength - slack], [output, bytes]);
  assert.equal(Buffer.compare(memory.subarray(0, TABLE_BYTES), tables), 0, "the kernel's tables stay");
  assert.ok(good >= 0 && good <= sizes.length);
  return good === sizes.length ? memory.slice(output, output + bytes) : undefined;
}

/** Pieces of noise, runs, text-like repetition from near and far. */
const plainBytes = fc.array(fc.tuple(fc.nat(3), fc.nat(900), fc.nat(0xffff)), { minLength: 1, maxLength: 60 }).map((pieces) => {
  const bytes: number[] = [];
  for (const [kind, length, value] of pieces) {
    const far = 1 + (value % Math.max(1, bytes.length));
    for (let i = 0; i <= length; i++) {
      if (kind === 0) bytes.push(Math.imul(i * i + value, 2654435761) >>> 24);
      else if (kind === 1 || bytes.length === 0) bytes.push(value & 0xff);
      else bytes.push(bytes[bytes.length - (kind === 2 ? far : 1 + (value % Math.min(bytes.length, 20)))]);
    }
  }
  return Uint8Array.from(bytes);
});

const blockSizes = fc.oneof(fc.constantFrom(512, 4096, 16384, 65536), fc.integer({ min: 100, max: 65536 }));

function judge(plain: Uint8Array, blockBytes: number): void {
  const { stored, sizes } = compress(plain, blockBytes);
  let at = 0;
  for (const [block, size] of sizes.entries()) {
    const code = stored.subarray(at, at + size - 4);
    const expected = referenceCompress(plain.subarray(block * blockBytes, (block + 1) * blockBytes));
    assert.equal(Buffer.compare(code, expected), 0, `block ${block} of ${blockBytes} bytes differs`);
    assert.equal(Buffer.from(stored).readUInt32LE(at + size - 4), crc32cRaw(SEED, code));
    at += size;
  }
  assert.equal(at, stored.length);
  assert.deepEqual(decode({ stored, sizes }, true, blockBytes, plain.length), plain);
}

test("blocks equal the reference's byte for byte, whatever lies in them and before them", () => {
  fc.assert(fc.property(plainBytes, blockSizes, judge), { numRuns: 400 });
});

test("a real file's blocks equal the reference's, in every block size", () => {
  const file = zstdDecompressSync(readFileSync(new URL("../../testdata/zfile/src.bin.zst", import.meta.url)));
  for (const blockBytes of [1000, 4096, 32768, 65535, 65536]) judge(new Uint8Array(file.subarray(0, 200_000)), blockBytes);
});

test("blocks of every length up to 80 bytes, and around 64 KiB, equal the reference's", () => {
  for (const bytes of [...Array.from({ length: 80 }, (_, i) => i + 1), 65534, 65535, 65536]) {
    for (const period of [1, 3, 7, 100_000]) {
      judge(
        Uint8Array.from({ length: bytes }, (_, i) => Math.imul(i % period, 2654435761) >>> 24),
        bytes,
      );
    }
  }
});

test("sums are right at every length and alignment", () => {
  const bytes = Uint8Array.from({ length: 9000 }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const [area] = layOut(bytes.length);
  memory.set(bytes, area);
  const lengths = [...Array.from({ length: 700 }, (_, i) => i), 4000, 4095, 4096, 4097, 4385, 4386, 4387, 8191, 8192, 8193, 8500, 8990];
  for (const length of lengths) {
    for (const start of [0, 1, 7, 10]) {
      const found = kernel.crc32c(SEED, area + start, area + start + length) >>> 0;
      assert.equal(found, crc32cRaw(SEED, bytes, start, start + length), `${length} bytes from ${start}`);
    }
  }
});

test("damaged blocks get the reference's verdict, and its bytes", () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(plainBytes, damage, fc.nat(3), fc.integer({ min: -2, max: 2 }), (plain, flips, cut, more) => {
      const block = plain.subarray(0, 5000);
      const whole = referenceCompress(block);
      for (const [at, value] of flips) whole[at % whole.length] ^= value;
      const code = whole.subarray(0, whole.length - Math.min(cut, whole.length));
      const bytes = Math.max(0, block.length + more);
      assert.deepEqual(decode({ stored: code, sizes: Uint32Array.of(code.length) }, false, bytes, bytes), referenceDecompress(code, bytes));
    }),
    { numRuns: 1500 },
  );
});

test("random bytes get the reference's verdict, and its bytes", () => {
  // Bytes whose tokens, lengths and distances are small come further than others.
  const bytes = fc.array(fc.oneof(fc.nat(255), fc.nat(20), fc.constantFrom(0xff, 0xf0, 0x0f, 0x10)), { maxLength: 80 });
  fc.assert(
    fc.property(bytes, fc.nat(400), (code, length) => {
      const stored = Uint8Array.from(code);
      const found = decode({ stored, sizes: Uint32Array.of(stored.length) }, false, length, length);
      assert.deepEqual(found, referenceDecompress(stored, length));
    }),
    { numRuns: 4000 },
  );
});

test("a changed bit anywhere in a batch is noticed", () => {
  const plain = Uint8Array.from({ length: 3000 }, (_, i) => (i * i) >>> 7);
  const { stored, sizes } = compress(plain, 700);
  for (let at = 0; at < stored.length; at++) {
    const damaged = stored.slice();
    damaged[at] ^= 1 << (at % 8);
    assert.equal(decode({ stored: damaged, sizes }, true, 700, plain.length), undefined, `byte ${at}`);
  }
});
