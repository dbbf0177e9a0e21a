import { corrupt, messageOf } from "../errors.ts";

export interface JsonObject {
  readonly [key: string]: unknown;
}

// The reviver's third argument and JSON.rawJSON are in the runtime before they are in the type library.
type Reviver = (this: unknown, key: string, value: unknown, details: { readonly source?: string }) => unknown;
interface SourceKeepingJson {
  parse(text: string, reviver: Reviver): unknown;
  rawJSON(text: string): object;
}
const json = JSON as unknown as SourceKeepingJson;

/**
 * Parses strict UTF-8 JSON into an object. Numbers that a double cannot hold keep their text, so that writing loses nothing.
 * Throws `CORRUPT` with `where` in front.
 */
export function parseJsonObject(bytes: Uint8Array, where: string): JsonObject {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = json.parse(text, keepExactNumbers);
  } catch (error) {
    // The engine's message quotes the text, which may be a secret; its position does not.
    const position = / at position \d+/.exec(messageOf(error))?.[0] ?? "";
    throw corrupt(`${where}: not valid UTF-8 JSON${position}`);
  }
  return requireObject(value, where);
}

function keepExactNumbers(this: unknown, _key: string, value: unknown, details: { readonly source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value) || details.source === undefined) return value;
  return String(value) === details.source ? value : json.rawJSON(details.source);
}

const ESCAPED: Readonly<Record<string, string>> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

/**
 * Compact UTF-8 JSON in the order of the object's own keys, escaped as registry tools written in Go do:
 * `<`, `>`, `&` and the two line separators become `\u` escapes. Those characters occur only inside of strings.
 */
export function encodeJson(value: JsonObject | object): Uint8Array {
  return Buffer.from(JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => ESCAPED[character]));
}

export function requireObject(value: unknown, where: string): JsonObject {
  if (isObject(value)) return value;
  throw corrupt(`${where}: is ${kindOf(value)}, expected an object`);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function requireArray(raw: JsonObject, key: string, where: string): readonly unknown[] {
  const value = raw[key];
  if (Array.isArray(value)) return value;
  throw corrupt(`${where}: ${key} is ${kindOf(value)}, expected an array`);
}

export function requireString(raw: JsonObject, key: string, where: string): string {
  const value = optionalString(raw, key, where);
  if (value) return value;
  throw corrupt(`${where}: ${key} is missing`);
}

/** Null counts as absent, as it does for the tools that write these documents. */
export function optionalString(raw: JsonObject, key: string, where: string): string | undefined {
  const value = raw[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  throw corrupt(`${where}: ${key} is ${kindOf(value)}, expected a string`);
}

export function optionalStringMap(raw: JsonObject, key: string, where: string): Readonly<Record<string, string>> | undefined {
  const value = raw[key];
  if (value === undefined || value === null) return undefined;
  const map = requireObject(value, `${where}: ${key}`);
  if (isStringMap(map)) return map;
  throw corrupt(`${where}: ${key} holds a value that is not a string`);
}

function isStringMap(map: JsonObject): map is Readonly<Record<string, string>> {
  return Object.values(map).every((value) => typeof value === "string");
}

/** `undefined`, `null`, `an array` or a type's name, for messages. */
function kindOf(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}
