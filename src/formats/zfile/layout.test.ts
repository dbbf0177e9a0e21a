import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { zfileRecord } from "./layout.ts";

const root = new URL("../../../", import.meta.url);
const page = readFileSync(new URL("docs/formats/zfile.md", root), "utf8");

test("the page's table of the record is the declared layout", () => {
  const rows = [...page.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| /gm)].map(([, offset, size, field]) => [
    Number(offset),
    Number(size),
    field,
  ]);
  const declared = Object.entries(zfileRecord.fields).map(([field, [offset, { bytes }]]) => [offset, bytes, field]);
  assert.deepEqual(rows, declared);
  let end = 0;
  for (const [, [offset, { bytes }]] of Object.entries(zfileRecord.fields)) {
    assert.equal(offset, end);
    end += bytes;
  }
  assert.equal(end, zfileRecord.size);
});

test("the page's example shows the file's bytes", () => {
  const [, name, dump] = /^```hex (\S+)\n([^`]+)```/m.exec(page) ?? [];
  const file = readFileSync(new URL(name, root));
  for (const line of dump.trimEnd().split("\n")) {
    const [at, hex] = line.split(": ");
    const bytes = hex.replaceAll(" ", "");
    assert.equal(file.toString("hex", Number.parseInt(at, 16), Number.parseInt(at, 16) + bytes.length / 2), bytes, line);
  }
});
