import assert from "node:assert/strict";
import { test } from "node:test";
import { ContentHash } from "./content-hash.ts";

/** The digest of pieces at offsets. */
function hashOf(...pieces: [offset: number, bytes: Uint8Array][]): string {
  const hash = new ContentHash();
  for (const [offset, bytes] of pieces) hash.write(offset, bytes);
  return hash.digest();
}

const BYTES = Buffer.from(Array.from({ length: 20_000 }, (_, at) => (at * 7) % 251));

test("how content is cut into pieces does not matter", () => {
  const whole = hashOf([0, BYTES]);
  for (const length of [1, 511, 4096, 4097, 19_999]) {
    const pieces: [number, Uint8Array][] = [];
    for (let at = 0; at < BYTES.length; at += length) pieces.push([at, BYTES.subarray(at, at + length)]);
    assert.equal(hashOf(...pieces), whole, `${length}`);
  }
});

test("zeros are the same written out or skipped", () => {
  const sparse = hashOf([5, BYTES.subarray(0, 10)], [50_000, BYTES]);
  assert.equal(
    hashOf([0, Buffer.alloc(5)], [5, BYTES.subarray(0, 10)], [15, Buffer.alloc(49_985)], [50_000, BYTES], [70_000, Buffer.alloc(9)]),
    sparse,
  );
  assert.equal(hashOf([0, Buffer.alloc(100_000)]), hashOf());
});

test("another byte, or the same in another place, is another content", () => {
  const other = Buffer.from(BYTES);
  other[19_999] ^= 1;
  const all = [hashOf([0, BYTES]), hashOf([1, BYTES]), hashOf([4096, BYTES]), hashOf([0, other]), hashOf()];
  assert.equal(new Set(all).size, all.length);
});
