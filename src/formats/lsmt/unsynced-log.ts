import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { raw, Struct, text, u32, u64 } from "../../bytes/struct.ts";
import type { WritableFile } from "../../bytes/writable-file.ts";
import { LSMT_RECORD_BYTES, MAPPING_BYTES, MAX_TABLE_SEGMENTS } from "./layout.ts";

/*
 * Entries of an index file that are not in it yet, because their data may not be on disk. See docs/formats/lsmt.md.
 *
 *   [header 128] [record: head 8, entries 16 × n] [record] …
 */

const UNSYNCED_MAGIC: Uint8Array = Buffer.from("lazylayer-upper1");

export const unsyncedHeader = new Struct(128, {
  magic: [0, raw(16)],
  bootId: [16, text(37)],
  uuid: [53, text(37)],
  reserved: [90, raw(6)],
  indexOffset: [96, u64],
  lastEntry: [104, raw(16)],
  unused: [120, raw(4)],
  checksum: [124, u32],
});

export const unsyncedRecord = new Struct(8, {
  checksum: [0, u32],
  entries: [4, u32],
});

const CHECKED_HEADER_BYTES = unsyncedHeader.fields.checksum[0];
const CHECKED_RECORD_BYTES = unsyncedRecord.fields.entries[0];
/** What none of ours exceeds: a record for each segment that a layer may have. */
const MAX_FILE_BYTES = unsyncedHeader.size + MAX_TABLE_SEGMENTS * (unsyncedRecord.size + MAPPING_BYTES);

/** Where a layer keeps entries that are not flushed yet, for whoever opens it after its process was killed. */
export interface UnsyncedPlace<S extends ByteSource = WritableFile> {
  readonly file: S;
  /** Of the machine's run: what is kept means nothing after the next start. */
  readonly bootId: string;
  /** Told why entries were dropped. */
  readonly notice: (message: string) => void;
}

/** What an index file ends with: entries that are kept elsewhere go on from there. */
export interface IndexEnd {
  readonly uuid: string;
  readonly offset: number;
  /** Zeros where there is none. */
  readonly lastEntry: Uint8Array;
}

/** Entries that go on where an index file ends, and the part of their file that says so. */
export interface UnsyncedEntries {
  readonly entries: Uint8Array;
  readonly fileEnd: number;
  readonly checksum: number;
}

export const NO_ENTRIES: UnsyncedEntries = { entries: new Uint8Array(0), fileEnd: 0, checksum: 0 };

/**
 * Reads the entries that go on where the index file of layer `uuid` ends. There are none where the file is of another run of the machine,
 * or the index file is not as it was when they were written, but for some of them. What was cut off is not there.
 */
export async function readUnsynced(
  { file, bootId, notice }: UnsyncedPlace<ByteSource>,
  index: ByteSource,
  { uuid, endOffset }: { readonly uuid: string; readonly endOffset: number },
): Promise<UnsyncedEntries> {
  const dropped = (why: string): UnsyncedEntries => {
    notice(`${file.name}: ${why}: what was written to the layer and not flushed then is dropped`);
    return NO_ENTRIES;
  };
  if (file.size === 0) return NO_ENTRIES;
  if (file.size > MAX_FILE_BYTES) return dropped(`has ${file.size} bytes, expected at most ${MAX_FILE_BYTES}`);
  const bytes = await file.read(0, file.size);
  const header = parseHeader(bytes);
  if (header === undefined) return dropped("is damaged, or of another program");
  if (header.bootId !== bootId) return dropped("is from before the machine was started, or of another machine");
  const { entries, ...end } = parseRecords(bytes, header.checksum);
  const known = endOffset - header.indexOffset;
  if (header.uuid !== uuid || known < 0) return dropped("belongs to another index file");
  const overlap = Math.min(known, entries.length);
  if (!(await continues(index, header, entries.subarray(0, overlap))))
    return dropped("another program has written to the index file since");
  if (known >= entries.length) return NO_ENTRIES;
  return { entries: entries.subarray(known), ...end };
}

type UnsyncedHeader = ReturnType<typeof unsyncedHeader.decode>;

function parseHeader(bytes: Uint8Array): UnsyncedHeader | undefined {
  if (bytes.length < unsyncedHeader.size) return undefined;
  const checksum = unsyncedHeader.decodeField("checksum", bytes);
  if (checksum !== checksumOf(0, bytes, 0, CHECKED_HEADER_BYTES)) return undefined;
  if (Buffer.compare(unsyncedHeader.decodeField("magic", bytes), UNSYNCED_MAGIC) !== 0) return undefined;
  const header = unsyncedHeader.decode(bytes);
  return header.indexOffset < LSMT_RECORD_BYTES || (header.indexOffset - LSMT_RECORD_BYTES) % MAPPING_BYTES !== 0 ? undefined : header;
}

/** All records up to one that is not whole, without their heads. */
function parseRecords(bytes: Uint8Array, headerChecksum: number): UnsyncedEntries {
  const entries = new Uint8Array(bytes.length - unsyncedHeader.size);
  let [at, length, last] = [unsyncedHeader.size, 0, headerChecksum];
  while (at + unsyncedRecord.size <= bytes.length) {
    const record = unsyncedRecord.decode(bytes, at);
    const start = at + unsyncedRecord.size;
    const end = start + record.entries * MAPPING_BYTES;
    if (record.entries === 0 || end > bytes.length) break;
    if (record.checksum !== checksumOf(last, bytes, at + CHECKED_RECORD_BYTES, end)) break;
    entries.set(bytes.subarray(start, end), length);
    [at, length, last] = [end, length + end - start, record.checksum];
  }
  return { entries: entries.subarray(0, length), fileEnd: at, checksum: last };
}

/** Whether the index file has, before and behind the place that the header names, what it had. */
async function continues(index: ByteSource, { indexOffset, lastEntry }: UnsyncedHeader, entries: Uint8Array): Promise<boolean> {
  const hasLast = indexOffset > LSMT_RECORD_BYTES;
  const expected = hasLast ? Buffer.concat([lastEntry, entries]) : entries;
  const found = await index.read(indexOffset - (hasLast ? lastEntry.length : 0), expected.length);
  return Buffer.compare(found, expected) === 0;
}

/** Of a record it goes on from what is before it: one that was left from earlier never fits. */
function checksumOf(before: number, bytes: Uint8Array, start: number, end: number): number {
  return ~crc32cRaw(~before, bytes, start, end) >>> 0;
}

/** The file with entries that are not flushed yet, as it is written. Calls must not overlap. */
export class UnsyncedLog {
  readonly #file: WritableFile;
  readonly #bootId: string;
  #fileEnd: number;
  #checksum: number;
  #batch = new Uint8Array(4096);

  private constructor({ file, bootId }: UnsyncedPlace, { fileEnd, checksum }: UnsyncedEntries) {
    this.#file = file;
    this.#bootId = bootId;
    this.#fileEnd = fileEnd;
    this.#checksum = checksum;
  }

  /** Goes on behind what was read of the file; the rest of it goes. */
  static async continue(place: UnsyncedPlace, found: UnsyncedEntries): Promise<UnsyncedLog> {
    if (place.file.size !== found.fileEnd) await place.file.truncate(found.fileEnd);
    return new UnsyncedLog(place, found);
  }

  get bytes(): number {
    return this.#fileEnd;
  }

  /** Adds entries behind those that are there; to an empty file, behind the end of the index file. They are copied at once. */
  async append(entries: Uint8Array, index: IndexEnd): Promise<void> {
    const isFirst = this.#fileEnd === 0;
    const head = isFirst ? unsyncedHeader.size : 0;
    const bytes = head + unsyncedRecord.size + entries.length;
    if (this.#batch.length < bytes) this.#batch = new Uint8Array(2 * bytes);
    const batch = this.#batch;
    let checksum = isFirst ? this.#putHeader(index) : this.#checksum;
    batch.set(entries, head + unsyncedRecord.size);
    unsyncedRecord.encodeInto(batch, { entries: entries.length / MAPPING_BYTES }, head);
    checksum = checksumOf(checksum, batch, head + CHECKED_RECORD_BYTES, bytes);
    unsyncedRecord.encodeInto(batch, { checksum }, head);
    await this.#file.write(this.#fileEnd, batch.subarray(0, bytes));
    this.#fileEnd += bytes;
    this.#checksum = checksum;
  }

  /** Empties the file. */
  async clear(): Promise<void> {
    // A write that failed may have left something behind the end.
    if (this.#file.size > 0) await this.#file.truncate(0);
    this.#fileEnd = 0;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #putHeader({ uuid, offset, lastEntry }: IndexEnd): number {
    const header = { magic: UNSYNCED_MAGIC, bootId: this.#bootId, uuid, indexOffset: offset, lastEntry };
    this.#batch.fill(0, 0, unsyncedHeader.size);
    unsyncedHeader.encodeInto(this.#batch, header);
    const checksum = checksumOf(0, this.#batch, 0, CHECKED_HEADER_BYTES);
    unsyncedHeader.encodeInto(this.#batch, { checksum });
    return checksum;
  }
}
