import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

interface DeclaredStruct {
  readonly size: number;
  readonly fields: Readonly<Record<string, readonly [offset: number, type: { readonly bytes: number }]>>;
}

/** Holds the tables of a page of docs/formats, one in each section with this title, against the structs that the code declares. */
export function testFormatPage(page: string, structs: Readonly<Record<string, DeclaredStruct>>): void {
  const text = readFileSync(new URL(`../../docs/formats/${page}`, import.meta.url), "utf8");
  for (const [title, { fields, size }] of Object.entries(structs)) {
    test(`the page's table is the declared layout: ${title}`, () => {
      const section = text.split(`\n## ${title}\n`)[1].split("\n## ")[0];
      const rows = [...section.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| /gm)].map(([, offset, bytes, field]) => [
        Number(offset),
        Number(bytes),
        field,
      ]);
      const declared = Object.entries(fields).map(([field, [offset, { bytes }]]) => [offset, bytes, field]);
      assert.deepEqual(rows, declared);
      let end = 0;
      for (const [field, [offset, { bytes }]] of Object.entries(fields)) {
        assert.ok(offset >= end, `${field} begins behind the field before`);
        end = offset + bytes;
      }
      assert.ok(end <= size);
    });
  }
}
