import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { traceHeader, traceRecord } from "./layout.ts";

interface Declared {
  readonly size: number;
  readonly fields: Readonly<Record<string, readonly [offset: number, type: { readonly bytes: number }]>>;
}

const page = readFileSync(new URL("../../../docs/formats/trace.md", import.meta.url), "utf8");

const STRUCTS: Readonly<Record<string, Declared>> = { Header: traceHeader, Record: traceRecord };

for (const [title, { fields, size }] of Object.entries(STRUCTS)) {
  test(`the page's table is the declared layout: ${title}`, () => {
    const section = page.split(`\n## ${title}\n`)[1].split("\n## ")[0];
    const rows = [...section.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| /gm)].map(([, at, bytes, field]) => [
      Number(at),
      Number(bytes),
      field,
    ]);
    const declared = Object.entries(fields).map(([field, [offset, { bytes }]]) => [offset, bytes, field]);
    assert.deepEqual(rows, declared);
    let end = 0;
    for (const [offset, { bytes }] of Object.values(fields)) {
      assert.ok(offset >= end, "fields do not overlap");
      end = offset + bytes;
    }
    assert.ok(end <= size);
  });
}
