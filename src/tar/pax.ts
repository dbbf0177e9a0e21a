import { corrupt, unsupported } from "../errors.ts";
import type { ByteString, Timespec } from "../tree/entry.ts";
import { quoted } from "../tree/path.ts";

const MAX_XATTR_BYTES = 64 * 1024; // Linux XATTR_SIZE_MAX
const MAX_LENGTH_DIGITS = 7; // a header holds at most 1 MiB
const MAX_RECORDS = 1 << 16; // global ones stay, so that headers without end would take memory without end
const SCHILY_XATTR = "SCHILY.xattr.";
const LIBARCHIVE_XATTR = "LIBARCHIVE.xattr.";

/** The records of extended headers, key to value, both as bytes. An empty value takes an earlier one back. */
export type PaxRecords = ReadonlyMap<ByteString, ByteString>;

export const NO_RECORDS: PaxRecords = new Map();

const NO_XATTRS: ReadonlyMap<ByteString, Uint8Array> = new Map();

/**
 * Decodes the body of an extended header, `LENGTH KEY=VALUE\n` repeated, on top of earlier records. The pairs of the
 * oldest sparse format, which repeat their keys, come out as one `GNU.sparse.map`.
 * Throws `CORRUPT` when a length, an equals sign or a newline is not where it has to be.
 */
export function parsePaxRecords(body: Buffer, earlier: PaxRecords): PaxRecords {
  const records = new Map(earlier);
  const sparsePairs: ByteString[] = [];
  let at = 0;
  while (at < body.length) {
    const end = at + recordBytes(body, at);
    const keyStart = body.indexOf(0x20, at) + 1;
    const equals = body.indexOf(0x3d, keyStart);
    if (equals <= keyStart || equals >= end - 1) throw corrupt(`extended header record at ${at} of its body has no "KEY="`);
    addRecord(records, sparsePairs, body.toString("latin1", keyStart, equals), body.toString("latin1", equals + 1, end - 1));
    if (records.size > MAX_RECORDS) throw unsupported(`extended headers have more than ${MAX_RECORDS} records`);
    at = end;
  }
  if (sparsePairs.length > 0) records.set("GNU.sparse.map", sparsePairs.join(","));
  return records;
}

/** The length of the record at `at`, its own digits and its newline included. */
function recordBytes(body: Buffer, at: number): number {
  let length = 0;
  let digit = at;
  for (; digit < body.length && digit - at <= MAX_LENGTH_DIGITS; digit++) {
    const value = body[digit] - 0x30;
    if (value < 0 || value > 9) break;
    length = length * 10 + value;
  }
  if (digit === at || body[digit] !== 0x20) throw corrupt(`extended header record at ${at} of its body does not start with its length`);
  const end = at + length;
  if (end <= digit + 1 || end > body.length) {
    throw corrupt(`extended header record at ${at} of its body says it is ${length} bytes long, ${body.length - at} are left`);
  }
  if (body[end - 1] !== 0x0a) throw corrupt(`extended header record at ${at} of its body does not end with a newline`);
  return length;
}

function addRecord(records: Map<ByteString, ByteString>, sparsePairs: ByteString[], key: ByteString, value: ByteString): void {
  if (key !== "GNU.sparse.offset" && key !== "GNU.sparse.numbytes") {
    records.set(key, value);
    return;
  }
  const expected = sparsePairs.length % 2 === 0 ? "GNU.sparse.offset" : "GNU.sparse.numbytes";
  if (key !== expected) throw corrupt(`extended header has ${key} where ${expected} is due`);
  sparsePairs.push(value);
}

/** Throws for records that make no sense for the whole archive. */
export function checkGlobalRecords(records: PaxRecords): void {
  for (const key of records.keys()) {
    if (key.startsWith("GNU.sparse.")) throw corrupt(`global extended header has ${quoted(key)}, which describes one file`);
    if (key.startsWith("GNU.volume.")) throw unsupported("the archive is one volume of several; join the volumes first");
  }
}

/** A record's value; undefined when it is absent or empty. */
export function paxText(records: PaxRecords, key: ByteString): ByteString | undefined {
  return records.get(key) || undefined;
}

/** A record as a whole number from 0 to 2^53 - 1. */
export function paxNumber(records: PaxRecords, key: ByteString): number | undefined {
  const text = paxText(records, key);
  return text === undefined ? undefined : parseDecimal(text, key);
}

export function parseDecimal(text: ByteString, what: string): number {
  const value = Number(text);
  if (!/^[0-9]{1,20}$/.test(text)) throw corrupt(`${what} is ${quoted(text)}, expected a decimal number`);
  if (!Number.isSafeInteger(value)) throw corrupt(`${what} is ${text}, expected less than 2^53`);
  return value;
}

/** A record as a time. Fractions count forward from the second below; digits after the ninth are cut off. */
export function paxTime(records: PaxRecords, key: ByteString): Timespec | undefined {
  const text = paxText(records, key);
  if (text === undefined) return undefined;
  const match = /^(-?)([0-9]{1,16})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) throw corrupt(`${key} is ${quoted(text)}, expected seconds and a fraction`);
  const whole = Number(match[2]);
  if (!Number.isSafeInteger(whole)) throw corrupt(`${key} is ${text}, expected less than 2^53 seconds`);
  const nanoseconds = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] === "") return { seconds: whole, nanoseconds };
  return nanoseconds === 0 ? { seconds: 0 - whole, nanoseconds } : { seconds: -whole - 1, nanoseconds: 1e9 - nanoseconds };
}

/** The extended attributes among the records, sorted by name. Where both spellings give one, SCHILY's raw bytes count. */
export function paxXattrs(records: PaxRecords): ReadonlyMap<ByteString, Uint8Array> {
  let found: Map<ByteString, Uint8Array> | undefined;
  for (const [key, value] of records) {
    if (key.startsWith(SCHILY_XATTR)) {
      found ??= new Map();
      found.set(key.slice(SCHILY_XATTR.length), Buffer.from(value, "latin1"));
    } else if (key.startsWith(LIBARCHIVE_XATTR)) {
      const name = percentDecoded(key.slice(LIBARCHIVE_XATTR.length));
      if (records.has(SCHILY_XATTR + name)) continue;
      found ??= new Map();
      found.set(name, base64Decoded(value, name));
    }
  }
  return found === undefined ? NO_XATTRS : sortedXattrs(found);
}

function sortedXattrs(xattrs: Map<ByteString, Uint8Array>): Map<ByteString, Uint8Array> {
  for (const [name, value] of xattrs) {
    if (name === "" || name.includes("\0")) throw corrupt(`extended attribute name ${quoted(name)} is no name`);
    if (value.length > MAX_XATTR_BYTES) {
      throw unsupported(`extended attribute ${quoted(name)} is ${value.length} bytes long, Linux stores at most ${MAX_XATTR_BYTES}`);
    }
  }
  return new Map([...xattrs].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function percentDecoded(text: ByteString): ByteString {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function base64Decoded(text: ByteString, name: ByteString): Uint8Array {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw corrupt(`extended attribute ${quoted(name)} is not in base64`);
  return Buffer.from(text, "base64");
}
