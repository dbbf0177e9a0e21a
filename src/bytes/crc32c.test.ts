import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { crc32cRaw } from "./crc32c.ts";

/** A bit at a time, as the polynomial says. */
function slowly(seed: number, bytes: Uint8Array): number {
  let crc = seed;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return crc >>> 0;
}

test("the inverted register is the CRC-32C that others compute", () => {
  const standard = (bytes: Uint8Array): number => ~crc32cRaw(0xffffffff, bytes) >>> 0;
  assert.equal(standard(Buffer.from("123456789")), 0xe3069283);
  // From RFC 3720, appendix B.4.
  assert.equal(standard(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(standard(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(standard(Buffer.from(Array.from({ length: 32 }, (_, at) => at))), 0x46dd794e);
});

test("any window of any bytes gives what the polynomial says", () => {
  const window = fc.tuple(fc.uint8Array({ maxLength: 100 }), fc.nat(20), fc.nat(20), fc.integer({ min: 0, max: 0xffffffff }));
  fc.assert(
    fc.property(window, ([bytes, before, after, seed]) => {
      const framed = Buffer.concat([Buffer.alloc(before, 1), bytes, Buffer.alloc(after, 2)]);
      assert.equal(crc32cRaw(seed, framed, before, before + bytes.length), slowly(seed, bytes));
      assert.equal(crc32cRaw(seed, framed.subarray(before, before + bytes.length)), slowly(seed, bytes));
    }),
    { verbose: 1 },
  );
});
