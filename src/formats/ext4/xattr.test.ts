import assert from "node:assert/strict";
import { test } from "node:test";
import {
  encodeInodeXattrs,
  encodeXattrBlock,
  fromDiskValue,
  parseInodeXattrs,
  parseXattrBlock,
  toDiskValue,
  type XattrRecord,
} from "./xattr.ts";

const ACCESS = "system.posix_acl_access";
/** As system calls show it: version 2, each entry with an id, 0xffffffff where it has none. */
const SHOWN = Buffer.from(
  "0200000001000600ffffffff02000700e803000004000400ffffffff08000500d007000010000700ffffffff20000400ffffffff",
  "hex",
);
/** As the kernel stores it: version 1, ids only for named users and groups. */
const STORED = Buffer.from("010000000100060002000700e80300000400040008000500d00700001000070020000400", "hex");

function record(name: string, value: Uint8Array): XattrRecord {
  return { name, value, valueInode: 0, valueHash: 0, valueBytes: value.length };
}

test("access control lists change their form on the way in and out", () => {
  assert.deepEqual(Buffer.from(toDiskValue(ACCESS, SHOWN)), STORED);
  assert.deepEqual(Buffer.from(fromDiskValue(ACCESS, STORED)), SHOWN);
  assert.equal(toDiskValue("user.acl", SHOWN), SHOWN);
});

test("what is no access control list is refused", () => {
  for (const bad of [Buffer.alloc(0), Buffer.alloc(4), SHOWN.subarray(0, 11)])
    assert.throws(() => toDiskValue(ACCESS, bad), { code: "CORRUPT" });
  for (const bad of [Buffer.alloc(3), SHOWN, STORED.subarray(0, 13)]) assert.throws(() => fromDiskValue(ACCESS, bad), { code: "CORRUPT" });
});

test("attributes come back from an inode and from a block", () => {
  const names = ["security.capability", ACCESS, "trusted.a", "user.\xe4", "user.empty"];
  const records = names.map((name, index) => record(name, Buffer.alloc(index === 4 ? 0 : index + 1, name)));
  const expected = records.map(({ name, value }): [string, string] => [name, Buffer.from(value).toString()]);
  const shown = (found: { name: string; value: Uint8Array }[]): [string, string][] =>
    found.map(({ name, value }) => [name, Buffer.from(value).toString()]);
  assert.deepEqual(shown(parseInodeXattrs(encodeInodeXattrs(records, 200), "x")), expected);
  const block = encodeXattrBlock(records, 4096);
  assert.deepEqual(new Map(shown(parseXattrBlock(block, "x"))), new Map(expected));
  const order = shown(parseXattrBlock(block, "x")).map(([name]) => name);
  assert.deepEqual(order, ["user.\xe4", "user.empty", ACCESS, "trusted.a", "security.capability"], "by number of the prefix, length, name");
});

test("damaged attributes are refused", () => {
  const block = Buffer.from(encodeXattrBlock([record("user.a", Buffer.from("value"))], 4096));
  const damaged = (at: number, byte: number): Buffer => Buffer.from(block).fill(byte, at, at + 1);
  assert.throws(() => parseXattrBlock(damaged(0, 1), "x"), { code: "CORRUPT", message: /magic/ });
  assert.throws(() => parseXattrBlock(damaged(33, 99), "x"), { code: "CORRUPT", message: /name index 99/ });
  assert.throws(() => parseXattrBlock(damaged(35, 0xff), "x"), { code: "CORRUPT", message: /has its value at/ });
});
