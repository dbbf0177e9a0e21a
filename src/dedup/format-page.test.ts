import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { CONVERSION_TABLE, conversionTableStatement } from "./conversion-table.ts";
import { CONVERTOR_TABLE_STATEMENTS } from "./convertor-tables.ts";
import { fingerprintOf } from "./fingerprint.ts";

const page = await readFile(join(import.meta.dirname, "../../docs/formats/conversion-database.md"), "utf8");

/** Names of the table and its columns and of its key's, from the statement that makes it. */
function shapeOf(statement: string): { table: string; columns: string[]; key: string } {
  const [, table, body] = /^create table if not exists (\w+) \((.*)\)/.exec(statement)!;
  const [columns, key] = body.split(/, primary key \(/);
  return { table, columns: columns.split(", ").map((column) => column.split(" ", 1)[0]), key: key.slice(0, key.indexOf(")")) };
}

test("the page names our table's columns, and its key", () => {
  const { table, columns, key } = shapeOf(conversionTableStatement({ text: "text", integer: "integer" }));
  assert.equal(table, CONVERSION_TABLE);
  const section = page.slice(page.indexOf("## Our table"), page.indexOf("### Fingerprint"));
  assert.deepEqual(
    [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name),
    columns,
  );
  assert.equal(key, columns.slice(0, 6).join(", "));
});

test("the page names the standalone convertor's tables as they are made", () => {
  for (const statement of CONVERTOR_TABLE_STATEMENTS) {
    const { table, columns, key } = shapeOf(statement);
    const index = /key \w+_elsewhere \(([^)]*)\)/.exec(statement)?.[1];
    assert.ok(page.includes(`| \`${table}\` | \`${columns.join(", ")}\` | \`${key}\` | \`${index}\` |`), table);
  }
});

test("the page's example is a fingerprint", () => {
  const options = {
    format: "overlaybd",
    formatVersion: 2,
    filesystem: "ext4",
    virtualSize: 64 * 2 ** 30,
    algorithm: "lz4",
    blockSize: 4096,
  };
  assert.ok(page.includes(`\`${fingerprintOf({ ...options, base: "mkfs" })}\``));
});
