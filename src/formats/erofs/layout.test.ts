import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { compactInodeStruct, direntStruct, extendedInodeStruct, superblockStruct, xattrEntryStruct, xattrHeaderStruct } from "./layout.ts";

const page = readFileSync(new URL("../../../docs/formats/erofs.md", import.meta.url), "utf8");

function section(title: string): string {
  return page.split(`\n## ${title}\n`)[1].split("\n## ")[0];
}

for (const [title, { fields, size }] of [
  ["Superblock", superblockStruct],
  ["Compact inode", compactInodeStruct],
  ["Extended inode", extendedInodeStruct],
  ["Directory entry", direntStruct],
  ["Attributes header", xattrHeaderStruct],
  ["Attribute", xattrEntryStruct],
] as const) {
  test(`the page's table is the declared layout: ${title}`, () => {
    const rows = [...section(title).matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| /gm)].map(([, offset, bytes, field]) => [
      Number(offset),
      Number(bytes),
      field,
    ]);
    const declared = Object.entries(fields).map(([field, [offset, { bytes }]]) => [offset, bytes, field]);
    assert.deepEqual(rows, declared);
    let end = 0;
    for (const [offset, bytes, field] of declared) {
      assert.ok(Number(offset) >= end, `${field} begins behind the field before`);
      end = Number(offset) + Number(bytes);
    }
    assert.ok(end <= size);
  });
}
