import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { lz4Bound, lz4Compress, lz4Decompress, LZ4_MAX_BLOCK_BYTES } from "./lz4.ts";

/** Bytes around a block that nothing may touch. */
const GUARD = 16;

function compress(plain: Uint8Array): Uint8Array {
  const output = new Uint8Array(lz4Bound(plain.length) + 2 * GUARD).fill(0xee);
  const end = lz4Compress(viewOf(plain), 0, plain.length, viewOf(output.subarray(GUARD, output.length - GUARD)), 0);
  assert.ok(output.subarray(0, GUARD).every((byte) => byte === 0xee));
  assert.ok(output.subarray(output.length - GUARD).every((byte) => byte === 0xee));
  return output.slice(GUARD, GUARD + end);
}

function decompress(code: Uint8Array, bytes: number): Uint8Array {
  const output = new Uint8Array(bytes + 2 * GUARD).fill(0xee);
  const input = Buffer.concat([new Uint8Array(GUARD), code, new Uint8Array(GUARD)]);
  try {
    lz4Decompress(viewOf(input), GUARD, GUARD + code.length, viewOf(output), GUARD, GUARD + bytes);
  } finally {
    assert.ok(output.subarray(0, GUARD).every((byte) => byte === 0xee));
    assert.ok(output.subarray(GUARD + bytes).every((byte) => byte === 0xee));
  }
  return output.subarray(GUARD, GUARD + bytes);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const isCorrupt = (error: unknown) => error instanceof LazyError && error.code === "CORRUPT";

/** Text-like bytes: pieces of noise, runs, and copies of what came before. */
const plainBytes = fc.array(fc.tuple(fc.nat(2), fc.nat(300), fc.nat(0xffff)), { maxLength: 60 }).map((pieces) => {
  const bytes: number[] = [];
  for (const [kind, length, value] of pieces) {
    for (let i = 0; i < length; i++) {
      if (kind === 0) bytes.push(Math.imul(i + value, 2654435761) >>> 24);
      else if (kind === 1 || bytes.length === 0) bytes.push(value & 0xff);
      else bytes.push(bytes[bytes.length - 1 - (value % Math.min(bytes.length, 1 + (value & 31)))]);
    }
  }
  return Uint8Array.from(bytes);
});

test("what is compressed decompresses to the same bytes", () => {
  fc.assert(
    fc.property(plainBytes, (plain) => {
      assert.deepEqual(decompress(compress(plain), plain.length), plain);
    }),
    { numRuns: 500 },
  );
});

test("blocks of every length around the format's limits round-trip", () => {
  for (const bytes of [0, 1, 4, 5, 11, 12, 13, 14, 15, 16, 17, 18, 19, 32, 254, 255, 256, 269, 270, 271, 65535, 65536]) {
    const zeros = new Uint8Array(bytes);
    assert.deepEqual(decompress(compress(zeros), bytes), zeros, `${bytes} zeros`);
    const noise = Uint8Array.from({ length: bytes }, (_, i) => Math.imul(i * i + 7, 2654435761) >>> 22);
    assert.deepEqual(decompress(compress(noise), bytes), noise, `${bytes} of noise`);
  }
});

test("bytes that do not shrink stay inside of the bound", () => {
  let state = 1;
  const noise = Uint8Array.from(
    { length: LZ4_MAX_BLOCK_BYTES },
    () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >>> 16,
  );
  const code = compress(noise);
  assert.ok(code.length > noise.length && code.length <= lz4Bound(noise.length));
  assert.deepEqual(decompress(code, noise.length), noise);
});

test("a block of more than 64 KiB, or one without room for its result, is refused", () => {
  const large = viewOf(new Uint8Array(LZ4_MAX_BLOCK_BYTES + 1));
  assert.throws(() => lz4Compress(large, 0, large.byteLength, viewOf(new Uint8Array(1 << 17)), 0), RangeError);
  assert.throws(() => lz4Compress(large, 0, 100, viewOf(new Uint8Array(lz4Bound(100) - 1)), 0), RangeError);
  assert.throws(() => lz4Decompress(large, 0, large.byteLength + 1, large, 0, 0), RangeError);
  assert.throws(() => lz4Decompress(large, 0, 1, large, 0, large.byteLength + 1), RangeError);
});

/** Token, extra literal length, literals, distance, extra match length; in hexadecimal. */
const blocks: [name: string, hex: string, plain: string | undefined][] = [
  ["an empty block is one zero token", "00", ""],
  ["literals only", "30 616263", "abc"],
  ["a match that repeats one byte", "10 61 0100 10 62", "aaaaab"],
  ["a match that repeats three bytes", "35 616263 0300 10 64", "abcabcabcabcd"],
  ["a match length in extra bytes", "1f 61 0100 03 10 62", "a".repeat(23) + "b"],
  ["a literal length in extra bytes", "f0 02 6162636465666768696a6b6c6d6e6f7071", "abcdefghijklmnopq"],
  ["no bytes at all", "", undefined],
  ["a literal length that is cut off", "f0", undefined],
  ["a literal length that is cut off after 255", "f0 ff", undefined],
  ["fewer literals than announced", "30 6162", undefined],
  ["a distance that is cut off", "10 61 01", undefined],
  ["a distance of zero", "10 61 0000 10 62", undefined],
  ["a distance beyond the start", "10 61 0200 10 62", undefined],
  ["a match length that is cut off", "1f 61 0100", undefined],
  ["a block that ends with a match", "10 61 0100", undefined],
];

for (const [name, hex, plain] of blocks) {
  test(`decompress: ${name}`, () => {
    const code = Buffer.from(hex.replaceAll(" ", ""), "hex");
    if (plain === undefined) {
      for (const bytes of [0, 1, 5, 6, 300]) assert.throws(() => decompress(code, bytes), isCorrupt);
      return;
    }
    assert.equal(Buffer.from(decompress(code, plain.length)).toString(), plain);
    assert.throws(() => decompress(code, plain.length + 1), isCorrupt);
    if (plain.length > 0) assert.throws(() => decompress(code, plain.length - 1), isCorrupt);
  });
}

test("a match of every short distance repeats its period", () => {
  for (let distance = 1; distance <= 20; distance++) {
    for (const length of [4, 7, 8, 9, 15, 18, 19, 40, 200]) {
      const seed = Uint8Array.from({ length: distance }, (_, i) => i + 1);
      const more = length - 4 >= 15 ? [length - 4 - 15] : [];
      const token = (distance >= 15 ? 0xf0 : distance << 4) | Math.min(15, length - 4);
      const code = [token, ...(distance >= 15 ? [distance - 15] : []), ...seed, distance, 0, ...more, 0x10, 0xff];
      const plain = Uint8Array.from({ length: distance + length + 1 }, (_, i) => (i === distance + length ? 0xff : (i % distance) + 1));
      assert.deepEqual(decompress(Uint8Array.from(code), plain.length), plain, `distance ${distance}, length ${length}`);
    }
  }
});

test("damaged blocks are refused or fill exactly their output, never more", () => {
  fc.assert(
    fc.property(plainBytes, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), fc.nat(3), (plain, flips, cut) => {
      const code = compress(plain);
      for (const [at, value] of flips) code[at % code.length] ^= value;
      try {
        decompress(code.subarray(0, code.length - Math.min(cut, code.length)), plain.length);
      } catch (error) {
        assert.ok(isCorrupt(error), String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test("random bytes are refused or fill exactly their output", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(200), (code, bytes) => {
      try {
        decompress(code, bytes);
      } catch (error) {
        assert.ok(isCorrupt(error), String(error));
      }
    }),
    { numRuns: 5000 },
  );
});
