import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { imageConfigSchema } from "../../device/image-config-schema.ts";
import { serviceConfigSchema } from "./service-schema.ts";

const page = await readFile(join(import.meta.dirname, "../../../docs/configuration.md"), "utf8");

/** A JSON schema, as far as it says keys, types and defaults. */
interface Described {
  readonly type?: string | undefined;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, Described>> | undefined;
  readonly items?: Described | undefined;
}

const described: z.ZodType<Described> = z.object({
  type: z.string().optional(),
  default: z.unknown().optional(),
  get properties() {
    return z.record(z.string(), described).optional();
  },
  get items() {
    return described.optional();
  },
});

/** The rows that a table must have: key, type and default. */
function rowsOf(schema: Described, prefix = ""): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, value]) => {
    const name = `${prefix}${key}`;
    if (value.properties) return rowsOf(value, `${name}.`);
    if (value.items?.properties) return rowsOf(value.items, `${name}[].`);
    const initial = value.default === undefined ? "" : `\`${JSON.stringify(value.default)}\``;
    return [`\`${name}\` | ${value.type} | ${initial}`.trimEnd()];
  });
}

/** The same of a table of the page, behind a heading. */
function tableBehind(heading: string): string[] {
  const section = page.slice(page.indexOf(`\n## ${heading}\n`)).split(/\n(?=##)/, 2)[1];
  return [...section.matchAll(/^\| (`[\w.[\]]+` \|[^|]*\|[^|]*)\|/gm)].map(([, row]) =>
    row
      .trimEnd()
      .replace(/\s*\|\s*/g, " | ")
      .trimEnd(),
  );
}

test("the page names the keys of a service's configuration, their types and defaults, in the schema's order or another", () => {
  const rows = rowsOf(described.parse(z.toJSONSchema(serviceConfigSchema, { io: "input" })));
  assert.ok(rows.includes("`cacheConfig.refillSize` | integer | `262144`"));
  assert.deepEqual(tableBehind("The service").toSorted(), rows.toSorted());
});

test("the page names the keys of an image's configuration, their types and defaults", () => {
  const rows = rowsOf(described.parse(z.toJSONSchema(imageConfigSchema, { io: "input" })));
  const own = rows.filter((row) => !row.startsWith("`download."));
  assert.ok(own.includes("`lowers[].size` | integer | `0`"));
  assert.deepEqual(tableBehind("An image").toSorted(), own.toSorted());
});
