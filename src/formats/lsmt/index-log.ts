import type { WritableFile } from "../../bytes/writable-file.ts";
import { corrupt, messageOf, unsupported } from "../../errors.ts";
import type { ByteSource } from "../../bytes/source.ts";
import type { LayerIdentity } from "./layer-identity.ts";
import {
  encodeMapping,
  encodeRecord,
  FLAG_HEADER,
  FLAG_SEALED,
  lsmtRecord,
  LSMT_RECORD_BYTES,
  MAPPING_BYTES,
  MAX_TABLE_SEGMENTS,
  type LsmtRecord,
} from "./layout.ts";
import { checkLsmtRecord, parseMappings } from "./lsmt-reader.ts";
import { MappingList } from "./mapping-list.ts";
import { NO_ENTRIES, readUnsynced, UnsyncedLog, type UnsyncedEntries, type UnsyncedPlace } from "./unsynced-log.ts";

/** The index of a writable layer is read in pieces of this size. */
const INDEX_READ_BYTES = 1 << 20;

/** Reads a header of a writable layer's file; `kind` are the bits that say which file it is. */
export async function readHeader(source: ByteSource, kind: number, what: string): Promise<LsmtRecord> {
  if (source.size < LSMT_RECORD_BYTES)
    throw corrupt(`${source.name}: lsmt ${what} of ${source.size} bytes, expected ${LSMT_RECORD_BYTES} at least`);
  return checkLsmtRecord(await source.read(0, LSMT_RECORD_BYTES), `${source.name}: lsmt header at 0`, kind);
}

/** What an index file says: entries in the order of the writes. */
export interface StoredIndex {
  readonly header: LsmtRecord;
  readonly log: MappingList;
  /** Where the entries that count end. What follows in the file was torn off by a crash. */
  readonly endOffset: number;
  /** Those of the log's entries that are not in the file yet, as a process that was killed has left them. */
  readonly unsynced: UnsyncedEntries;
}

/**
 * Reads the index file of a writable layer. Entries are appended and count once they are flushed, so what an interrupted append left
 * is dropped: an entry that was cut off, and everything from an entry on that is all zeros, because a file may grow before its bytes
 * arrive. Places that entries point to are not checked.
 */
export async function readIndexFile(index: ByteSource): Promise<StoredIndex> {
  const header = await readHeader(index, FLAG_HEADER, "index file");
  if (header.flags & FLAG_SEALED) throw corrupt(`${index.name}: lsmt index file is sealed, expected one of a writable layer`);
  if (header.indexOffset !== LSMT_RECORD_BYTES) {
    throw corrupt(`${index.name}: lsmt index begins at ${header.indexOffset}, expected ${LSMT_RECORD_BYTES}`);
  }
  const entries = Math.floor((index.size - LSMT_RECORD_BYTES) / MAPPING_BYTES);
  if (entries > MAX_TABLE_SEGMENTS)
    throw unsupported(`${index.name}: lsmt index has ${entries} entries, expected at most ${MAX_TABLE_SEGMENTS}`);
  const end = LSMT_RECORD_BYTES + entries * MAPPING_BYTES;
  const log = new MappingList();
  for (let at = LSMT_RECORD_BYTES; at < end; at += INDEX_READ_BYTES) {
    const piece = await index.read(at, Math.min(INDEX_READ_BYTES, end - at));
    const whole = entriesBeforeZeros(piece) * MAPPING_BYTES;
    parseMappings(piece.subarray(0, whole), log);
    if (whole < piece.length) return { header, log, endOffset: at + whole, unsynced: NO_ENTRIES };
  }
  return { header, log, endOffset: end, unsynced: NO_ENTRIES };
}

/**
 * Adds, to what an index file says, the entries that were not flushed when its process was killed: all of them, or none if one of them
 * fails `check`, which gets the position of each.
 */
export async function withUnsynced(
  index: ByteSource,
  stored: StoredIndex,
  place: UnsyncedPlace<ByteSource> | undefined,
  check: (i: number) => void,
): Promise<StoredIndex> {
  if (place === undefined) return stored;
  const { header, log, endOffset } = stored;
  const unsynced = await readUnsynced(place, index, { uuid: header.uuid, endOffset });
  const known = log.count;
  parseMappings(unsynced.entries, log);
  try {
    for (let i = known; i < log.count; i++) check(i);
  } catch (error) {
    place.notice(`${place.file.name}: does not fit the layer, and is dropped: ${messageOf(error)}`);
    log.cut(known);
    return stored;
  }
  return { ...stored, unsynced };
}

function entriesBeforeZeros(index: Uint8Array): number {
  const view = new DataView(index.buffer, index.byteOffset, index.byteLength);
  const entries = index.length / MAPPING_BYTES;
  for (let i = 0; i < entries; i++) {
    if (view.getBigUint64(i * MAPPING_BYTES, true) === 0n && view.getBigUint64(i * MAPPING_BYTES + 8, true) === 0n) return i;
  }
  return entries;
}

/**
 * The index file of a writable layer as it is appended to. Entries are kept back until `store`, so that none is on disk before the data
 * that it points to. Meanwhile `keep` puts them where the end of the process cannot take them away, if there is a place for that.
 */
export class IndexLog {
  readonly #file: WritableFile;
  readonly #uuid: string;
  readonly #unsynced: UnsyncedLog | undefined;
  /** Where the entries end that are in the file; those that wait go on from there. */
  #end: number;
  /** Where the entries end that are in the file or kept. */
  #keptEnd: number;
  /** Something in the file may not be on disk. */
  #isLoose = false;
  #isForgetting = false;
  readonly #lastEntry = new Uint8Array(MAPPING_BYTES);
  #waiting = new Uint8Array(64 * MAPPING_BYTES);
  #view = new DataView(this.#waiting.buffer);
  #waitingBytes = 0;

  private constructor(file: WritableFile, uuid: string, endOffset: number, unsynced: UnsyncedLog | undefined) {
    this.#file = file;
    this.#uuid = uuid;
    this.#unsynced = unsynced;
    this.#end = this.#keptEnd = endOffset;
  }

  /** Begins a new index file. */
  static async create(file: WritableFile, identity: LayerIdentity, place?: UnsyncedPlace): Promise<IndexLog> {
    await file.write(0, encodeRecord({ ...identity, flags: FLAG_HEADER, indexOffset: LSMT_RECORD_BYTES }));
    await file.flush();
    return new IndexLog(file, identity.uuid, LSMT_RECORD_BYTES, place && (await UnsyncedLog.continue(place, NO_ENTRIES)));
  }

  /** Goes on with an index file; what a crash left behind its entries is cut off before anything else is written. */
  static async continue(file: WritableFile, { header, endOffset, unsynced }: StoredIndex, place?: UnsyncedPlace): Promise<IndexLog> {
    if (file.size !== endOffset) {
      await file.truncate(endOffset);
      await file.flush();
    }
    const log = new IndexLog(file, header.uuid, endOffset, place && (await UnsyncedLog.continue(place, unsynced)));
    if (endOffset > LSMT_RECORD_BYTES) log.#lastEntry.set(await file.read(endOffset - MAPPING_BYTES, MAPPING_BYTES));
    // A process that was killed may have written them and not flushed.
    log.#isLoose = true;
    log.#makeRoom(unsynced.entries.length);
    log.#waiting.set(unsynced.entries);
    log.#waitingBytes = unsynced.entries.length;
    log.#keptEnd += unsynced.entries.length;
    return log;
  }

  get waitingEntries(): number {
    return this.#waitingBytes / MAPPING_BYTES;
  }

  /** What is kept, in bytes of its file. */
  get keptBytes(): number {
    return this.#unsynced?.bytes ?? 0;
  }

  add(firstSector: number, sectors: number, mappedSector: number, zeroed: boolean, tag: number): void {
    this.#makeRoom(this.#waitingBytes + MAPPING_BYTES);
    encodeMapping(this.#view, this.#waitingBytes, firstSector, sectors, mappedSector, zeroed, tag);
    this.#waitingBytes += MAPPING_BYTES;
  }

  /** Keeps what waits; what is stored needs no keeping any more. Calls must not overlap, but may overlap with others. */
  async keep(): Promise<void> {
    if (this.#unsynced === undefined) return;
    if (this.#keptEnd <= this.#end || this.#isForgetting) {
      await this.#unsynced.clear();
      this.#keptEnd = this.#end;
    }
    const waitingEnd = this.#end + this.#waitingBytes;
    if (this.#keptEnd === waitingEnd || this.#isForgetting) return;
    const entries = this.#waiting.subarray(this.#keptEnd - this.#end, this.#waitingBytes);
    await this.#unsynced.append(entries, { uuid: this.#uuid, offset: this.#end, lastEntry: this.#lastEntry });
    this.#keptEnd = waitingEnd;
  }

  /** From now on nothing is kept, and what is kept goes with the next `keep`: the data may not be what was written. */
  forget(): void {
    this.#isForgetting = true;
  }

  /** Stores the first `entries` of what waits and flushes. When that fails they wait still. Calls must not overlap. */
  async store(entries: number): Promise<void> {
    if (entries === 0 && !this.#isLoose) return;
    const bytes = entries * MAPPING_BYTES;
    if (bytes > 0) await this.#file.write(this.#end, this.#waiting.slice(0, bytes));
    await this.#file.flush();
    this.#isLoose = false;
    if (bytes > 0) this.#lastEntry.set(this.#waiting.subarray(bytes - MAPPING_BYTES, bytes));
    this.#waiting.copyWithin(0, bytes, this.#waitingBytes);
    this.#waitingBytes -= bytes;
    this.#end += bytes;
  }

  async resize(virtualSize: number): Promise<void> {
    await writeVirtualSize(this.#file, virtualSize);
  }

  async close(): Promise<void> {
    try {
      await this.#unsynced?.close();
    } finally {
      await this.#file.close();
    }
  }

  #makeRoom(bytes: number): void {
    if (bytes <= this.#waiting.length) return;
    const grown = new Uint8Array(Math.max(bytes, this.#waiting.length * 2));
    grown.set(this.#waiting);
    this.#waiting = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** Changes the size of the device in the header of a writable layer's file. */
export async function writeVirtualSize(file: WritableFile, virtualSize: number): Promise<void> {
  const [offset, { bytes }] = lsmtRecord.fields.virtualSize;
  const field = Buffer.alloc(bytes);
  field.writeBigUInt64LE(BigInt(virtualSize));
  await file.write(offset, field);
  await file.flush();
}
