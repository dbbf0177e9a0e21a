import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { decodeMapping, encodeMapping, lsmtRecord, type MappingFields } from "./layout.ts";

const root = new URL("../../../", import.meta.url);
const page = readFileSync(new URL("docs/formats/lsmt.md", root), "utf8");

/** The part of the page under a heading. */
function section(heading: string): string {
  return page.split("\n## ").find((part) => part.startsWith(heading)) ?? "";
}

test("the page's table of the record is the declared layout", () => {
  const rows = [...section("Header and trailer").matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| /gm)].map(([, offset, size, field]) => [
    Number(offset),
    Number(size),
    field,
  ]);
  const declared = Object.entries(lsmtRecord.fields).map(([field, [offset, { bytes }]]) => [offset, bytes, field]);
  assert.deepEqual(rows, declared);
  let end = 0;
  for (const [, [offset, { bytes }]] of Object.entries(lsmtRecord.fields)) {
    assert.equal(offset, end);
    end += bytes;
  }
  assert.equal(end, lsmtRecord.size);
});

test("the page's bits of an entry are where the code puts them", () => {
  const rows = [...section("Index entries").matchAll(/^\| ([01]) \| (\d+)(?:–(\d+))? \| (\w+) \| /gm)];
  assert.equal(rows.length, 5);
  for (const [, word, low, high = low, field] of rows) {
    const mask = (2n ** BigInt(Number(high) + 1) - 1n) ^ (2n ** BigInt(low) - 1n);
    const entry = new DataView(new ArrayBuffer(16));
    entry.setBigUint64(Number(word) * 8, mask, true);
    const decoded: MappingFields = { firstSector: 0, sectors: 0, mappedSector: 0, zeroed: false, tag: 0 };
    decodeMapping(entry, 0, decoded);
    const all = Number(mask >> BigInt(low));
    assert.deepEqual(decoded, {
      firstSector: 0,
      sectors: 0,
      mappedSector: 0,
      zeroed: false,
      tag: 0,
      [field]: field === "zeroed" ? true : all,
    });
  }
});

test("an entry decodes to what was encoded, up to the largest values", () => {
  const fields: MappingFields = { firstSector: 0, sectors: 0, mappedSector: 0, zeroed: false, tag: 0 };
  const view = new DataView(new ArrayBuffer(48));
  for (const firstSector of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 50 - 2]) {
    for (const sectors of [1, 16383]) {
      for (const mappedSector of [8, 2 ** 31, 2 ** 32 + 5, 2 ** 53 - 1]) {
        for (const zeroed of [false, true]) {
          encodeMapping(view, 16, firstSector, sectors, mappedSector, zeroed);
          decodeMapping(view, 16, fields);
          assert.deepEqual(fields, { firstSector, sectors, mappedSector, zeroed, tag: 0 });
        }
      }
    }
  }
});

test("the page's example shows the file's bytes", () => {
  const [, name, dump] = /^```hex (\S+)\n([^`]+)```/m.exec(page) ?? [];
  const file = zstdDecompressSync(readFileSync(new URL(name, root)));
  for (const line of dump.trimEnd().split("\n")) {
    const [at, hex] = line.split(": ");
    const bytes = hex.replaceAll(" ", "");
    assert.equal(file.toString("hex", Number.parseInt(at, 16), Number.parseInt(at, 16) + bytes.length / 2), bytes, line);
  }
});
