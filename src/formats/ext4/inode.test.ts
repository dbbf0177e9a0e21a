import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { clampTime, decodeDevice, decodeInode, encodeDevice, encodeInode, type Inode } from "./inode.ts";

const EPOCH = { seconds: 0, nanoseconds: 0 };
const INODE: Inode = {
  mode: 33188,
  uid: 0,
  gid: 0,
  size: 0,
  links: 1,
  sectors: 0,
  flags: 0,
  generation: 0,
  xattrBlock: 0,
  version: 0,
  atime: EPOCH,
  mtime: EPOCH,
  ctime: EPOCH,
  block: new Uint8Array(60),
  extraIsize: 32,
  createTime: 0,
  createTimeExtra: 0,
};

function encoded(inode: Inode): Buffer {
  const record = Buffer.alloc(256);
  encodeInode(inode, new DataView(record.buffer, record.byteOffset, record.length));
  return record;
}

test("an inode's fields survive their halves", () => {
  const time = fc.record(
    { seconds: fc.integer({ min: -(2 ** 31), max: 2 ** 34 - 2 ** 31 - 1 }), nanoseconds: fc.nat(999_999_999) },
    { noNullPrototype: true },
  );
  const inode = fc.record({
    mode: fc.nat(65535),
    uid: fc.nat(0xffffffff),
    gid: fc.nat(0xffffffff),
    size: fc.nat(2 ** 44),
    links: fc.nat(65e3),
    sectors: fc.nat(2 ** 48 - 1),
    generation: fc.nat(0xffffffff),
    xattrBlock: fc.nat(2 ** 48 - 1),
    version: fc.nat(0xffffffff),

    atime: time,
    mtime: time,
    ctime: time,
    createTime: fc.nat(0xffffffff),
    createTimeExtra: fc.nat(0xffffffff),
  });
  fc.assert(
    fc.property(inode, (fields) => {
      const expected = { ...INODE, ...fields };
      assert.deepEqual(decodeInode(encoded(expected)), expected);
    }),
  );
});

test("times beyond what fits become the nearest end", () => {
  assert.deepEqual(clampTime({ seconds: -(2 ** 31) - 1, nanoseconds: 5 }), { seconds: -(2 ** 31), nanoseconds: 0 });
  assert.deepEqual(clampTime({ seconds: 2 ** 34 - 2 ** 31, nanoseconds: 5 }), { seconds: 15_032_385_535, nanoseconds: 0 });
  assert.deepEqual(clampTime({ seconds: -1, nanoseconds: 5 }), { seconds: -1, nanoseconds: 5 });
});

test("small device numbers have the old form, others the new one", () => {
  const rows: [major: number, minor: number, hex: string][] = [
    [1, 3, "0301000000000000"],
    [255, 255, "ffff000000000000"],
    [5, 256, "0000000000051000"],
    [4095, 0xfffff, "00000000ffffffff"],
  ];
  for (const [major, minor, hex] of rows) {
    const block = encodeDevice(major, minor);
    assert.equal(Buffer.from(block).toString("hex", 0, 8), hex);
    assert.deepEqual(decodeDevice(block), { major, minor });
  }
});

test("an inode of 128 bytes has seconds only, and large files count in blocks", () => {
  const record = encoded({ ...INODE, flags: 0, sectors: 100, mtime: { seconds: 7, nanoseconds: 9 } }).subarray(0, 128);
  assert.deepEqual(decodeInode(record).mtime, { seconds: 7, nanoseconds: 0 });
  record.writeUInt32LE(0x40000, 0x20);
  assert.equal(decodeInode(record).sectors, 800);
});
