import { z } from "zod";
import { LazyError, messageOf } from "../errors.ts";
import { parseJsonObject, type JsonObject } from "../oci/json.ts";

/** A configuration, and what its writer should know about it. */
export interface ParsedConfig<T> {
  readonly config: T;
  readonly notices: readonly string[];
}

const MAX_TEXT_BYTES = 16 * 2 ** 20;
const MAX_SHOWN_VALUE = 80;
const MAX_PROBLEMS = 20;

/**
 * Parses the JSON text of a configuration file. Keys that the schema does not know have no effect and get a notice each.
 * Throws `USAGE` that names each key that is wrong, its value, and what is expected.
 */
export function parseConfigText<T extends z.ZodObject>(schema: T, text: string, name: string): ParsedConfig<z.infer<T>> {
  const raw = readJson(text, name);
  const parsed = schema.safeParse(raw);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${keyText(path)} is ${shown(valueAt(raw, path))}, ${message}`);
    const more = problems.length > MAX_PROBLEMS ? [`and ${problems.length - MAX_PROBLEMS} more`] : [];
    throw new LazyError("USAGE", `${name}: ${[...problems.slice(0, MAX_PROBLEMS), ...more].join("; ")}`);
  }
  return { config: parsed.data, notices: unknownKeys(raw, schema, []) };
}

function readJson(text: string, name: string): JsonObject {
  if (text.length > MAX_TEXT_BYTES) throw new LazyError("USAGE", `${name}: longer than ${MAX_TEXT_BYTES} bytes, expected a configuration`);
  try {
    return parseJsonObject(Buffer.from(text), name);
  } catch (error) {
    throw new LazyError("USAGE", `${messageOf(error)}; expected a JSON object, without comments`, { cause: error });
  }
}

type Path = readonly PropertyKey[];

/** As it is written in documents: `lowers[2].digest`. */
function keyText(path: Path): string {
  const text = path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
  return text.replace(/^\./, "") || "the document";
}

function valueAt(raw: unknown, path: Path): unknown {
  let value = raw;
  for (const part of path) value = typeof value === "object" && value !== null ? Reflect.get(value, part) : undefined;
  return value;
}

function shown(value: unknown): string {
  const text = value === undefined ? "missing" : JSON.stringify(value);
  return text.length > MAX_SHOWN_VALUE ? `${text.slice(0, MAX_SHOWN_VALUE)}…` : text;
}

function unknownKeys(raw: unknown, schema: z.ZodType, path: Path): string[] {
  const inner = unwrapped(schema);
  if (inner instanceof z.ZodArray && Array.isArray(raw)) {
    const { element } = inner;
    return element instanceof z.ZodType ? raw.flatMap((item, index) => unknownKeys(item, element, [...path, index])) : [];
  }
  if (!(inner instanceof z.ZodObject) || typeof raw !== "object" || raw === null) return [];
  const known = Object.keys(inner.shape);
  return Object.entries(raw).flatMap(([key, value]) => {
    const child: unknown = Object.hasOwn(inner.shape, key) ? inner.shape[key] : undefined;
    if (child instanceof z.ZodType) return unknownKeys(value, child, [...path, key]);
    const near = nearest(key, known);
    return [
      `${keyText([...path, key])} is not known and has no effect${near === undefined ? "" : `; is ${keyText([...path, near])} meant?`}`,
    ];
  });
}

function unwrapped(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional) {
    const inner = schema.unwrap();
    return inner instanceof z.ZodType ? unwrapped(inner) : schema;
  }
  return schema;
}

/** The known key that most likely was meant; undefined where none is near. */
function nearest(key: string, known: readonly string[]): string | undefined {
  const [wanted, limit] = [key.toLowerCase(), Math.max(1, Math.floor(key.length / 3))];
  const ranked = known.map((name) => ({ name, distance: editDistance(wanted, name.toLowerCase().slice(0, 2 * wanted.length), limit) }));
  const best = ranked.toSorted((one, other) => one.distance - other.distance)[0];
  return best !== undefined && best.distance <= limit ? best.name : undefined;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one text into the other; more than `limit` is not told apart. */
function editDistance(one: string, other: string, limit: number): number {
  if (Math.abs(one.length - other.length) > limit) return limit + 1;
  const rows = [Array.from({ length: other.length + 1 }, (_, column) => column)];
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const same = one[i - 1] === other[j - 1];
      row.push(Math.min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (same ? 0 : 1)));
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1]) row[j] = Math.min(row[j], rows[i - 2][j - 2] + 1);
    }
    rows.push(row);
  }
  return rows[one.length][other.length];
}

/** A text. */
export function textKey(expected = "a text"): z.ZodString {
  return z.string({ error: `expected ${expected}` });
}

export function flagKey(): z.ZodBoolean {
  return z.boolean({ error: "expected true or false" });
}

export function wholeNumberKey(min: number, max: number, what = "a whole number"): z.ZodInt {
  const error = `expected ${what} from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

/** An object of keys that all have a default; it may be missing. */
export function sectionOf<T extends z.ZodRawShape>(shape: T): z.ZodObject<T> {
  return z.object(shape, { error: "expected an object" });
}

export const MAX_INT = 2 ** 31 - 1;
export const MAX_UINT = 2 ** 32 - 1;
