import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";

/** One stored attribute. The value is `value`, or lies in the inode `valueInode`. */
export interface StoredXattr {
  readonly name: ByteString;
  readonly value: Uint8Array;
  readonly valueInode: number;
  readonly valueBytes: number;
}

/** An attribute to store: its value is given, or lies in an inode whose value hash is known. */
export interface XattrRecord {
  readonly name: ByteString;
  /** In the disk's form, see `toDiskValue`. Empty where the value lies in an inode. */
  readonly value: Uint8Array;
  readonly valueInode: number;
  /** CRC-32C of the value, where it lies in an inode. */
  readonly valueHash: number;
  readonly valueBytes: number;
}

const MAGIC = 0xea020000;
const ENTRY_HEADER_BYTES = 16;
const BLOCK_HEADER_BYTES = 32;
const INODE_HEADER_BYTES = 4;
/** Four zero bytes end the entries. */
const END_BYTES = 4;

/** Name prefixes that are stored as a number; a prefix that is a whole name leaves an empty rest. */
const PREFIXES: readonly (readonly [index: number, prefix: string])[] = [
  [2, "system.posix_acl_access"],
  [3, "system.posix_acl_default"],
  [8, "system.richacl"],
  [1, "user."],
  [4, "trusted."],
  [6, "security."],
  [7, "system."],
];
const ACL_NAMES = new Set(["system.posix_acl_access", "system.posix_acl_default"]);

function splitName(name: ByteString): { index: number; rest: ByteString } {
  for (const [index, prefix] of PREFIXES) {
    const whole = !prefix.endsWith(".");
    if (whole ? name === prefix : name.startsWith(prefix)) return { index, rest: name.slice(prefix.length) };
  }
  throw unsupported(`extended attribute "${name}": expected one of the namespaces user, trusted, security, system`);
}

function joinName(index: number, rest: ByteString, where: string): ByteString {
  const found = PREFIXES.find(([number]) => number === index);
  if (!found && index !== 0) throw corrupt(`${where}: extended attribute with name index ${index}`);
  return (found?.[1] ?? "") + rest;
}

function paddedTo4(length: number): number {
  return (length + 3) & ~3;
}

/** Hash of a name and of a value's words, as entries carry it. */
function entryHash(rest: ByteString, value: Uint8Array): number {
  let hash = 0;
  for (let at = 0; at < rest.length; at++) hash = (hash << 5) ^ (hash >>> 27) ^ rest.charCodeAt(at);
  for (let at = 0; at < value.length; at += 4) {
    const word = value[at] | ((value[at + 1] ?? 0) << 8) | ((value[at + 2] ?? 0) << 16) | ((value[at + 3] ?? 0) << 24);
    hash = (hash << 16) ^ (hash >>> 16) ^ word;
  }
  return hash >>> 0;
}

function hashOf(record: XattrRecord, rest: ByteString): number {
  if (record.valueInode === 0) return entryHash(rest, record.value);
  const word = Buffer.alloc(4);
  word.writeUInt32LE(record.valueHash);
  return entryHash(rest, word);
}

/** Bytes that an attribute takes in an inode or a block. */
export function recordBytes(record: XattrRecord): number {
  return ENTRY_HEADER_BYTES + paddedTo4(splitName(record.name).rest.length) + paddedTo4(record.value.length);
}

/** Room for records inside of an inode whose attribute area has `areaBytes`. */
export function inodeRoom(areaBytes: number): number {
  return areaBytes - INODE_HEADER_BYTES - END_BYTES;
}

/** Room for records in a block. */
export function blockRoom(blockBytes: number): number {
  return blockBytes - BLOCK_HEADER_BYTES - END_BYTES;
}

/** The attribute area of an inode. Value offsets count from behind its 4-byte header. */
export function encodeInodeXattrs(records: readonly XattrRecord[], areaBytes: number): Uint8Array {
  const area = Buffer.alloc(areaBytes);
  if (records.length === 0) return area;
  area.writeUInt32LE(MAGIC, 0);
  encodeRecords(area, INODE_HEADER_BYTES, INODE_HEADER_BYTES, records);
  return area;
}

/** An attribute block; its checksum is left zero. Entries are sorted by name index, length and name. */
export function encodeXattrBlock(records: readonly XattrRecord[], blockBytes: number): Uint8Array {
  const block = Buffer.alloc(blockBytes);
  block.writeUInt32LE(MAGIC, 0);
  block.writeUInt32LE(1, 4); // references
  block.writeUInt32LE(1, 8); // blocks
  const sorted = records.toSorted((a, b) => compareStored(splitName(a.name), splitName(b.name)));
  const hash = encodeRecords(block, BLOCK_HEADER_BYTES, 0, sorted);
  block.writeUInt32LE(hash, 12);
  return block;
}

function compareStored(a: { index: number; rest: ByteString }, b: { index: number; rest: ByteString }): number {
  return a.index - b.index || a.rest.length - b.rest.length || (a.rest < b.rest ? -1 : a.rest > b.rest ? 1 : 0);
}

/** Writes entries forward from `start` and values backward from the end; returns the hash of all entries. */
function encodeRecords(area: Buffer, start: number, valueBase: number, records: readonly XattrRecord[]): number {
  let at = start;
  let valueAt = area.length;
  let blockHash = 0;
  for (const record of records) {
    const { index, rest } = splitName(record.name);
    const hash = hashOf(record, rest);
    valueAt -= paddedTo4(record.value.length);
    area[at] = rest.length;
    area[at + 1] = index;
    area.writeUInt16LE(record.value.length > 0 ? valueAt - valueBase : 0, at + 2);
    area.writeUInt32LE(record.valueInode, at + 4);
    area.writeUInt32LE(record.valueBytes, at + 8);
    area.writeUInt32LE(hash, at + 12);
    area.write(rest, at + ENTRY_HEADER_BYTES, "latin1");
    area.set(record.value, valueAt);
    at += ENTRY_HEADER_BYTES + paddedTo4(rest.length);
    if (at + END_BYTES > valueAt) throw new RangeError(`attributes do not fit ${area.length} bytes`);
    blockHash = ((blockHash << 16) ^ (blockHash >>> 16) ^ hash) >>> 0;
  }
  return blockHash;
}

/** The attributes in an inode's area; none where the area has no magic. */
export function parseInodeXattrs(area: Uint8Array, where: string): StoredXattr[] {
  if (area.length < INODE_HEADER_BYTES + END_BYTES || new DataView(area.buffer, area.byteOffset).getUint32(0, true) !== MAGIC) return [];
  return parseRecords(area, INODE_HEADER_BYTES, INODE_HEADER_BYTES, where);
}

/** The attributes in a block. */
export function parseXattrBlock(block: Uint8Array, where: string): StoredXattr[] {
  const magic = new DataView(block.buffer, block.byteOffset).getUint32(0, true);
  if (magic !== MAGIC) throw corrupt(`${where}: attribute block has magic 0x${magic.toString(16)}, expected 0xea020000`);
  return parseRecords(block, BLOCK_HEADER_BYTES, 0, where);
}

function parseRecords(area: Uint8Array, start: number, valueBase: number, where: string): StoredXattr[] {
  const view = new DataView(area.buffer, area.byteOffset, area.length);
  const found: StoredXattr[] = [];
  let at = start;
  while (at + END_BYTES <= area.length && view.getUint32(at, true) !== 0) {
    const nameLength = area[at];
    const nameEnd = at + ENTRY_HEADER_BYTES + nameLength;
    if (nameEnd > area.length) throw corrupt(`${where}: extended attribute at ${at} has a name of ${nameLength} bytes`);
    const rest = Buffer.from(area.buffer, area.byteOffset + at + ENTRY_HEADER_BYTES, nameLength).toString("latin1");
    const valueInode = view.getUint32(at + 4, true);
    const valueBytes = view.getUint32(at + 8, true);
    const from = valueBase + view.getUint16(at + 2, true);
    if (valueInode === 0 && from + valueBytes > area.length) {
      throw corrupt(`${where}: extended attribute at ${at} has its value at [${from}, ${from + valueBytes}) of ${area.length}`);
    }
    const name = joinName(area[at + 1], rest, where);
    const value = valueInode === 0 ? new Uint8Array(area.subarray(from, from + valueBytes)) : new Uint8Array();
    found.push({ name, value, valueInode, valueBytes });
    at += ENTRY_HEADER_BYTES + paddedTo4(nameLength);
  }
  return found;
}

const ACL_XATTR_VERSION = 2;
const ACL_DISK_VERSION = 1;
const ACL_USER = 0x2;
const ACL_GROUP = 0x8;

/** An attribute's value as the disk stores it: ACLs drop the ids of entries that need none, all else is as given. */
export function toDiskValue(name: ByteString, value: Uint8Array): Uint8Array {
  if (!ACL_NAMES.has(name)) return value;
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  if (value.length < 4 || value.length % 8 !== 4 || view.getUint32(0, true) !== ACL_XATTR_VERSION) {
    throw corrupt(`${name}: ${value.length} bytes are not an access control list of version ${ACL_XATTR_VERSION}`);
  }
  const out = Buffer.alloc(value.length);
  out.writeUInt32LE(ACL_DISK_VERSION, 0);
  let end = 4;
  for (let at = 4; at < value.length; at += 8) {
    const tag = view.getUint16(at, true);
    const length = tag === ACL_USER || tag === ACL_GROUP ? 8 : 4;
    out.set(value.subarray(at, at + length), end);
    end += length;
  }
  return out.subarray(0, end);
}

/** The inverse of `toDiskValue`. */
export function fromDiskValue(name: ByteString, value: Uint8Array): Uint8Array {
  if (!ACL_NAMES.has(name)) return value;
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  if (value.length < 4 || view.getUint32(0, true) !== ACL_DISK_VERSION) throw corrupt(`${name}: not an access control list of version 1`);
  const out: number[] = [ACL_XATTR_VERSION, 0, 0, 0];
  for (let at = 4; at < value.length;) {
    if (at + 4 > value.length) throw corrupt(`${name}: ends inside of an entry`);
    const tag = view.getUint16(at, true);
    const length = tag === ACL_USER || tag === ACL_GROUP ? 8 : 4;
    if (at + length > value.length) throw corrupt(`${name}: ends inside of an entry`);
    out.push(...value.subarray(at, at + length));
    if (length === 4) out.push(0xff, 0xff, 0xff, 0xff);
    at += length;
  }
  return Uint8Array.from(out);
}
