import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { xattrEntryStruct, xattrHeaderStruct } from "./layout.ts";

/** An attribute by its full name. */
export interface Xattr {
  readonly name: ByteString;
  readonly value: Uint8Array;
}

/** The longest value: its length has 16 bits. */
export const MAX_VALUE_BYTES = 65535;
/** The largest area of an inode: its size is counted in 16 bits, in words behind the header. */
export const MAX_AREA_BYTES = xattrHeaderStruct.size + 65534 * 4;
/** An inode refers to at most this many shared attributes. */
export const MAX_SHARED = 255;

/** Name prefixes that are stored as a number; a prefix that is a whole name leaves an empty rest. */
const PREFIXES: readonly (readonly [index: number, prefix: string])[] = [
  [2, "system.posix_acl_access"],
  [3, "system.posix_acl_default"],
  [1, "user."],
  [4, "trusted."],
  [6, "security."],
];
const PREFIX_OF: ReadonlyMap<number, string> = new Map(PREFIXES);

function splitName(name: ByteString): { index: number; rest: ByteString } {
  for (const [index, prefix] of PREFIXES) {
    const whole = !prefix.endsWith(".");
    if (whole ? name === prefix : name.startsWith(prefix)) return { index, rest: name.slice(prefix.length) };
  }
  throw unsupported(`extended attribute "${name}": expected one of the namespaces user, trusted, security, system`);
}

function paddedTo4(length: number): number {
  return (length + 3) & ~3;
}

/** Bytes that an attribute takes, inline or shared. */
export function entryBytes(xattr: Xattr): number {
  return paddedTo4(xattrEntryStruct.size + splitName(xattr.name).rest.length + xattr.value.length);
}

/** Bytes of an inode's area that refers to shared attributes and holds others. */
export function areaBytes(sharedCount: number, inline: readonly Xattr[]): number {
  if (sharedCount === 0 && inline.length === 0) return 0;
  return inline.reduce((sum, xattr) => sum + entryBytes(xattr), xattrHeaderStruct.size + sharedCount * 4);
}

/** Writes one attribute and returns where the next one goes. */
export function encodeEntry(xattr: Xattr, target: Buffer, at: number): number {
  const { index, rest } = splitName(xattr.name);
  target[at] = rest.length;
  target[at + 1] = index;
  target.writeUInt16LE(xattr.value.length, at + 2);
  target.write(rest, at + xattrEntryStruct.size, "latin1");
  target.set(xattr.value, at + xattrEntryStruct.size + rest.length);
  return at + entryBytes(xattr);
}

/** Writes an inode's area of `areaBytes`. Shared attributes are given by their number. */
export function encodeArea(shared: readonly number[], inline: readonly Xattr[], target: Buffer, offset: number): void {
  if (shared.length === 0 && inline.length === 0) return;
  target[offset + xattrHeaderStruct.fields.sharedCount[0]] = shared.length;
  let at = offset + xattrHeaderStruct.size;
  for (const number of shared) at = target.writeUInt32LE(number, at);
  for (const xattr of inline) at = encodeEntry(xattr, target, at);
}

/** Lengths of an attribute's parts, which its first bytes give. */
export function decodeEntryBytes(bytes: Uint8Array, at: number): number {
  const { nameBytes, valueBytes } = xattrEntryStruct.decode(bytes, at);
  return xattrEntryStruct.size + nameBytes + valueBytes;
}

/** One attribute; undefined where there is none, as in an area that is larger than its entries. */
export function decodeEntry(bytes: Uint8Array, at: number, where: string): Xattr | undefined {
  const { nameBytes, nameIndex, valueBytes } = xattrEntryStruct.decode(bytes, at);
  if (nameIndex === 0 && nameBytes === 0 && valueBytes === 0) return undefined;
  const nameAt = at + xattrEntryStruct.size;
  const valueAt = nameAt + nameBytes;
  if (valueAt + valueBytes > bytes.length)
    throw corrupt(`${where}: attribute at ${at} ends at ${valueAt + valueBytes}, its area has ${bytes.length} bytes`);
  const prefix = PREFIX_OF.get(nameIndex);
  if (prefix === undefined) throw corrupt(`${where}: attribute at ${at} has the name index ${nameIndex}`);
  const name = prefix + Buffer.from(bytes.buffer, bytes.byteOffset + nameAt, nameBytes).toString("latin1");
  return { name, value: bytes.slice(valueAt, valueAt + valueBytes) };
}

/** An inode's area: its own attributes, and the numbers of the shared ones. */
export function decodeArea(bytes: Uint8Array, where: string): { shared: number[]; inline: Xattr[] } {
  const { sharedCount } = xattrHeaderStruct.decode(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = xattrHeaderStruct.size;
  if (at + sharedCount * 4 > bytes.length) throw corrupt(`${where}: ${sharedCount} shared attributes in an area of ${bytes.length} bytes`);
  const shared = Array.from({ length: sharedCount }, (_, index) => view.getUint32(at + index * 4, true));
  at += sharedCount * 4;
  const inline: Xattr[] = [];
  while (at < bytes.length) {
    const xattr = decodeEntry(bytes, at, where);
    if (xattr) inline.push(xattr);
    at += paddedTo4(decodeEntryBytes(bytes, at));
  }
  return { shared, inline };
}
