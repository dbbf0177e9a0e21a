import { corrupt } from "../errors.ts";
import type { ByteString } from "../tree/entry.ts";
import { parseNumber } from "./number-field.ts";

export const BLOCK_BYTES = 512;

/** Where the fields of a header block are: offset and length in bytes. */
const FIELDS = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  typeflag: [156, 1],
  linkName: [157, 100],
  magic: [257, 8],
  major: [329, 8],
  minor: [337, 8],
  prefix: [345, 155],
  starPrefix: [345, 131],
  gnuAtime: [345, 12],
  gnuCtime: [357, 12],
  starAtime: [476, 12],
  starCtime: [488, 12],
  starTrailer: [508, 4],
} as const;

type Field = keyof typeof FIELDS;
type Dialect = "v7" | "ustar" | "gnu" | "star";

/** One header block, before extended headers override it. */
export interface TarHeader {
  readonly typeflag: string;
  readonly name: ByteString;
  readonly linkName: ByteString;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** As stored; may be negative in a broken archive. */
  readonly size: number;
  readonly mtime: number;
  readonly atime: number | undefined;
  readonly ctime: number | undefined;
  readonly major: number;
  readonly minor: number;
}

/**
 * Decodes the header block at `offset`; undefined for a block of zeros. Throws `CORRUPT` when its checksum, taken over
 * unsigned or signed bytes, is wrong or when a field is no number.
 */
export function parseHeader(bytes: Buffer, offset: number): TarHeader | undefined {
  const sum = unsignedSum(bytes, offset);
  if (sum === 0) return undefined;
  verifyChecksum(bytes, offset, sum);
  const dialect = dialectOf(bytes, offset);
  const number = (field: Field): number => parseNumber(bytes, offset + FIELDS[field][0], FIELDS[field][1], field);
  const typeflag = textOf(bytes, offset, "typeflag");
  const isDevice = typeflag === "3" || typeflag === "4";
  return {
    typeflag,
    name: nameOf(bytes, offset, dialect),
    linkName: textOf(bytes, offset, "linkName"),
    mode: number("mode"),
    uid: number("uid"),
    gid: number("gid"),
    size: number("size"),
    mtime: number("mtime"),
    atime: optionalTime(bytes, offset, dialect, "gnuAtime", "starAtime"),
    ctime: optionalTime(bytes, offset, dialect, "gnuCtime", "starCtime"),
    major: isDevice ? number("major") : 0,
    minor: isDevice ? number("minor") : 0,
  };
}

function unsignedSum(bytes: Uint8Array, offset: number): number {
  let sum = 0;
  for (let at = offset, end = offset + BLOCK_BYTES; at < end; at += 4) sum += bytes[at] + bytes[at + 1] + bytes[at + 2] + bytes[at + 3];
  return sum;
}

/** The sum counts the checksum field itself as eight spaces. */
function verifyChecksum(bytes: Uint8Array, offset: number, sum: number): void {
  const [fieldOffset, fieldBytes] = FIELDS.checksum;
  const stored = parseNumber(bytes, offset + fieldOffset, fieldBytes, "checksum");
  let unsigned = sum;
  for (let at = 0; at < fieldBytes; at++) unsigned += 0x20 - bytes[offset + fieldOffset + at];
  if (stored === unsigned) return;
  let signed = unsigned;
  for (let at = offset; at < offset + BLOCK_BYTES; at++) {
    const inField = at >= offset + fieldOffset && at < offset + fieldOffset + fieldBytes;
    if (!inField && bytes[at] > 127) signed -= 256;
  }
  if (stored !== signed) throw corrupt(`header checksum is ${unsigned}, the header says ${stored}`);
}

function dialectOf(bytes: Buffer, offset: number): Dialect {
  const at = offset + FIELDS.magic[0];
  if (bytes[at] !== 0x75 || bytes.toString("latin1", at, at + 5) !== "ustar") return "v7";
  if (bytes[at + 5] === 0x20) return hasGnuTimes(bytes, offset) ? "gnu" : "ustar";
  const trailer = offset + FIELDS.starTrailer[0];
  return bytes[trailer] !== 0 && bytes.toString("latin1", trailer, trailer + 4) === "tar\0" ? "star" : "ustar";
}

/**
 * Early writers of the Go language marked headers as GNU's but put a prefix where GNU has times; layers made with them
 * are still around. What is no number there is a prefix.
 */
function hasGnuTimes(bytes: Buffer, offset: number): boolean {
  return isNumber(bytes, offset, "gnuAtime") && isNumber(bytes, offset, "gnuCtime");
}

function isNumber(bytes: Buffer, offset: number, field: Field): boolean {
  const start = offset + FIELDS[field][0];
  const first = bytes[start];
  return first === 0 || first > 127 || /^ *[0-7]*[ \0]*$/.test(bytes.toString("latin1", start, start + FIELDS[field][1]));
}

function nameOf(bytes: Buffer, offset: number, dialect: Dialect): ByteString {
  const name = textOf(bytes, offset, "name");
  if (dialect === "v7" || dialect === "gnu") return name;
  const prefix = textOf(bytes, offset, dialect === "star" ? "starPrefix" : "prefix");
  return prefix === "" ? name : `${prefix}/${name}`;
}

/** Text ends at the first NUL or fills its field. The one-character typeflag may be NUL itself. */
function textOf(bytes: Buffer, offset: number, field: Field): ByteString {
  const start = offset + FIELDS[field][0];
  const limit = start + FIELDS[field][1];
  if (field === "typeflag") return String.fromCharCode(bytes[start]);
  let end = start;
  while (end < limit && bytes[end] !== 0) end++;
  return end === start ? "" : bytes.toString("latin1", start, end);
}

function optionalTime(bytes: Buffer, offset: number, dialect: Dialect, gnu: Field, star: Field): number | undefined {
  if (dialect !== "gnu" && dialect !== "star") return undefined;
  const [fieldOffset, fieldBytes] = FIELDS[dialect === "gnu" ? gnu : star];
  if (bytes[offset + fieldOffset] === 0) return undefined;
  return parseNumber(bytes, offset + fieldOffset, fieldBytes, dialect === "gnu" ? gnu : star);
}
