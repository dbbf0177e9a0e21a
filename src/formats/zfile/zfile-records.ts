import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, messageOf, unsupported } from "../../errors.ts";
import {
  ALGORITHM_CODES,
  FLAG_DATA,
  FLAG_DIGEST,
  FLAG_HEADER,
  FLAG_HEADER_OVERWRITTEN,
  FLAG_INDEX_COMPRESSED,
  FLAG_SEALED,
  FLAGS_DEFINED,
  MAX_BLOCK_SIZE,
  MAX_INDEX_ENTRIES,
  recordDigest,
  ZFILE_MAGIC,
  ZFILE_RECORD_BYTES,
  zfilePrefix,
  zfileRecord,
  type ZFileRecord,
} from "./layout.ts";

/** The index is fetched in pieces of this size. */
const INDEX_READ_BYTES = 4 << 20;

/** The record that describes a ZFile, checked, and the bytes of its index. */
export interface ZFileRecords {
  readonly record: ZFileRecord;
  readonly index: Uint8Array;
}

/**
 * Reads header, index and trailer. A header that was overwritten describes the file, else the trailer does; where both do
 * they must agree, so that damage to either is found although one would be enough to read on.
 */
export async function readZFileRecords(source: ByteSource): Promise<ZFileRecords> {
  const { name, size } = source;
  if (size < 2 * ZFILE_RECORD_BYTES) throw corrupt(`${name}: zfile of ${size} bytes, expected ${2 * ZFILE_RECORD_BYTES} at least`);
  const headerBytes = await source.read(0, ZFILE_RECORD_BYTES);
  const headerFlags = checkRecord(headerBytes, `${name}: zfile header at 0`, FLAG_HEADER | FLAG_DATA, FLAG_HEADER | FLAG_DATA);
  const trailerAt = size - ZFILE_RECORD_BYTES;

  if (headerFlags & FLAG_HEADER_OVERWRITTEN) {
    const header = decodeRecord(headerBytes, `${name}: zfile header at 0`);
    checkIndexRange(header, trailerAt, name);
    const { index, trailerBytes } = await readIndexAndTrailer(source, header);
    const trailer = checkTrailer(trailerBytes, headerFlags, trailerAt, name);
    const differing = describedDifference(header, trailer, true);
    if (differing) throw corrupt(`${name}: zfile header and trailer differ in ${differing}`);
    checkDescription(header, headerFlags, `${name}: zfile header at 0`);
    checkIndexCrc(index, header, headerFlags, name);
    return { record: header, index };
  }

  const trailer = checkTrailer(await source.read(trailerAt, ZFILE_RECORD_BYTES), headerFlags, trailerAt, name);
  if (headerFlags & FLAG_DIGEST) {
    const differing = describedDifference(decodeRecord(headerBytes, `${name}: zfile header at 0`), trailer, false);
    if (differing) throw corrupt(`${name}: zfile header and trailer differ in ${differing}`);
  }
  checkDescription(trailer, headerFlags, `${name}: zfile trailer at ${trailerAt}`);
  checkIndexRange(trailer, trailerAt, name);
  const { index } = await readIndexAndTrailer(source, trailer);
  checkIndexCrc(index, trailer, headerFlags, name);
  return { record: trailer, index };
}

/** Checks magic, digest and kind of a record; returns the flags that have a meaning. */
function checkRecord(bytes: Uint8Array, where: string, mask: number, expected: number): number {
  const prefix = zfilePrefix.decode(bytes);
  if (Buffer.compare(prefix.magic, ZFILE_MAGIC) !== 0)
    throw corrupt(`${where}: no zfile magic, found ${Buffer.from(prefix.magic).toString("hex")}`);
  // Old writers left garbage in the upper bits, and only they leave the digest bit clear.
  const flags = prefix.flags & FLAGS_DEFINED;
  if (flags & FLAG_DIGEST) {
    const digest = recordDigest(bytes);
    if (digest !== prefix.digest) throw corrupt(`${where}: digest is ${hex(digest)}, the record says ${hex(prefix.digest)}`);
    if (prefix.flags & FLAG_INDEX_COMPRESSED) throw unsupported(`${where}: the index is compressed, which no known writer does`);
  }
  if ((flags & mask) !== expected)
    throw corrupt(`${where}: flags are 0x${flags.toString(16)}, expected 0x${expected.toString(16)} in bits 0x${mask.toString(16)}`);
  return flags;
}

function checkTrailer(bytes: Uint8Array, headerFlags: number, trailerAt: number, name: string): ZFileRecord {
  const where = `${name}: zfile trailer at ${trailerAt}`;
  const flags = checkRecord(bytes, where, FLAG_HEADER | FLAG_DATA | FLAG_SEALED, FLAG_DATA | FLAG_SEALED);
  if ((flags ^ headerFlags) & FLAG_DIGEST) {
    const [on, off] = flags & FLAG_DIGEST ? ["trailer", "header"] : ["header", "trailer"];
    throw corrupt(`${where}: the ${on} says that digests are valid, the ${off} that they are not`);
  }
  return decodeRecord(bytes, where);
}

function decodeRecord(bytes: Uint8Array, where: string): ZFileRecord {
  try {
    return zfileRecord.decode(bytes);
  } catch (cause) {
    throw corrupt(`${where}: ${messageOf(cause)}`, { cause });
  }
}

/** Checks the fields that say how blocks are stored, before anything is allocated from them. */
function checkDescription(record: ZFileRecord, headerFlags: number, where: string): void {
  if (record.algorithm !== ALGORITHM_CODES.lz4 && record.algorithm !== ALGORITHM_CODES.zstd) {
    throw unsupported(`${where}: compression algorithm is ${record.algorithm}, expected 1 (lz4) or 2 (zstd)`);
  }
  if (record.blockSize < 1 || record.blockSize > MAX_BLOCK_SIZE) {
    throw corrupt(`${where}: block size is ${record.blockSize}, expected 1 to ${MAX_BLOCK_SIZE}`);
  }
  if (record.dictionaryBytes !== 0 || (headerFlags & FLAG_DIGEST && record.useDictionary !== 0)) {
    throw unsupported(`${where}: compressed with a dictionary of ${record.dictionaryBytes} bytes, which no known writer does`);
  }
  const blocks = Math.ceil(record.originalBytes / record.blockSize);
  if (record.indexEntries !== blocks) {
    throw corrupt(
      `${where}: index has ${record.indexEntries} entries, expected ${blocks} for ${record.originalBytes} bytes in blocks of ${record.blockSize}`,
    );
  }
}

function checkIndexRange(record: ZFileRecord, trailerAt: number, name: string): void {
  const { indexOffset, indexEntries } = record;
  if (indexEntries > MAX_INDEX_ENTRIES)
    throw corrupt(`${name}: zfile index has ${indexEntries} entries, expected at most ${MAX_INDEX_ENTRIES}`);
  const end = indexOffset + indexEntries * 4;
  if (indexOffset < ZFILE_RECORD_BYTES || end !== trailerAt) {
    throw corrupt(`${name}: zfile index is at [${indexOffset}, ${end}), expected it to end where the trailer begins, at ${trailerAt}`);
  }
}

/** Index and trailer lie together, so they come in one read. */
async function readIndexAndTrailer(source: ByteSource, record: ZFileRecord): Promise<{ index: Uint8Array; trailerBytes: Uint8Array }> {
  const bytes = record.indexEntries * 4 + ZFILE_RECORD_BYTES;
  if (bytes <= INDEX_READ_BYTES) {
    const tail = await source.read(record.indexOffset, bytes);
    return { index: tail.subarray(0, bytes - ZFILE_RECORD_BYTES), trailerBytes: tail.subarray(bytes - ZFILE_RECORD_BYTES) };
  }
  const tail = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += INDEX_READ_BYTES) {
    tail.set(await source.read(record.indexOffset + at, Math.min(INDEX_READ_BYTES, bytes - at)), at);
  }
  return { index: tail.subarray(0, bytes - ZFILE_RECORD_BYTES), trailerBytes: tail.subarray(bytes - ZFILE_RECORD_BYTES) };
}

function checkIndexCrc(index: Uint8Array, record: ZFileRecord, flags: number, name: string): void {
  if (!(flags & FLAG_DIGEST)) return;
  const found = crc32cRaw(0, index);
  if (found !== record.indexCrc) {
    throw corrupt(`${name}: zfile index at ${record.indexOffset}: crc is ${hex(found)}, the record says ${hex(record.indexCrc)}`);
  }
}

const CODEC_FIELDS = ["blockSize", "algorithm", "useDictionary", "dictionaryBytes", "verify"] as const;
const INDEX_FIELDS = ["indexOffset", "indexEntries", "originalBytes", "indexCrc"] as const;

/** The first field that both records state and that differs, with both values. */
function describedDifference(header: ZFileRecord, trailer: ZFileRecord, complete: boolean): string | undefined {
  for (const field of complete ? [...INDEX_FIELDS, ...CODEC_FIELDS] : CODEC_FIELDS) {
    if (header[field] !== trailer[field]) return `${field}: ${header[field]} and ${trailer[field]}`;
  }
  return undefined;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
