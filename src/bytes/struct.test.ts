import assert from "node:assert/strict";
import { test } from "node:test";
import { raw, Struct, text, u16, u32, u64, u8 } from "./struct.ts";

const sample = new Struct(32, {
  kind: [0, u8],
  count: [2, u16],
  flags: [4, u32],
  size: [8, u64],
  name: [16, text(6)],
  key: [24, raw(4)],
});

test("fields are little-endian and where the table says", () => {
  const bytes = sample.encode({
    kind: 1,
    count: 0x0203,
    flags: 0xfffefdfc,
    size: 2 ** 40 + 5,
    name: "abc",
    key: Buffer.from([9, 8, 7, 6]),
  });
  assert.equal(
    Buffer.from(bytes).toString("hex"),
    ["0100", "0302", "fcfdfeff", "0500000000010000", "616263000000", "0000", "09080706", "00000000"].join(""),
  );
  const value = sample.decode(bytes);
  assert.deepEqual(
    { ...value, key: [...value.key] },
    { kind: 1, count: 0x0203, flags: 0xfffefdfc, size: 2 ** 40 + 5, name: "abc", key: [9, 8, 7, 6] },
  );
});

test("writing some fields leaves the others", () => {
  const bytes = new Uint8Array(40).fill(0xaa);
  sample.encodeInto(bytes, { count: 1 }, 8);
  assert.deepEqual([...bytes.subarray(8, 13)], [0xaa, 0xaa, 1, 0, 0xaa]);
});

test("what was decoded does not change with the bytes", () => {
  const bytes = sample.encode({ key: Buffer.from([1, 2, 3, 4]) });
  const { key } = sample.decode(bytes);
  bytes.fill(0);
  assert.deepEqual([...key], [1, 2, 3, 4]);
});

test("a size that a number cannot hold is corrupt", () => {
  const bytes = new Uint8Array(32).fill(0xff);
  assert.throws(() => sample.decode(bytes), { code: "CORRUPT", message: /18446744073709551615/ });
});

test("too few bytes are corrupt, values that do not fit are the caller's mistake", () => {
  assert.throws(() => sample.decode(new Uint8Array(40), 16), { code: "CORRUPT", message: /32 bytes at 16: only 24 left/ });
  assert.throws(() => sample.encode({ name: "sevench" }), RangeError);
  assert.throws(() => sample.encode({ key: new Uint8Array(5) }), RangeError);
});
