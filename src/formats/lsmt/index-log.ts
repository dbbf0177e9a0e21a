import type { WritableFile } from "../../bytes/writable-file.ts";
import { corrupt, unsupported } from "../../errors.ts";
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
    if (whole < piece.length) return { header, log, endOffset: at + whole };
  }
  return { header, log, endOffset: end };
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
 * that it points to.
 */
export class IndexLog {
  readonly #file: WritableFile;
  #end: number;
  #waiting = new Uint8Array(64 * MAPPING_BYTES);
  #view = new DataView(this.#waiting.buffer);
  #waitingBytes = 0;

  constructor(file: WritableFile, endOffset: number) {
    this.#file = file;
    this.#end = endOffset;
  }

  /** Begins a new index file. */
  static async create(file: WritableFile, identity: LayerIdentity): Promise<IndexLog> {
    await file.write(0, encodeRecord({ ...identity, flags: FLAG_HEADER, indexOffset: LSMT_RECORD_BYTES }));
    await file.flush();
    return new IndexLog(file, LSMT_RECORD_BYTES);
  }

  /** Goes on with an index file; what a crash left behind its entries is cut off before anything else is written. */
  static async continue(file: WritableFile, { endOffset }: StoredIndex): Promise<IndexLog> {
    if (file.size !== endOffset) {
      await file.truncate(endOffset);
      await file.flush();
    }
    return new IndexLog(file, endOffset);
  }

  get waitingEntries(): number {
    return this.#waitingBytes / MAPPING_BYTES;
  }

  add(firstSector: number, sectors: number, mappedSector: number, zeroed: boolean, tag: number): void {
    if (this.#waitingBytes === this.#waiting.length) {
      const grown = new Uint8Array(this.#waiting.length * 2);
      grown.set(this.#waiting);
      this.#waiting = grown;
      this.#view = new DataView(grown.buffer);
    }
    encodeMapping(this.#view, this.#waitingBytes, firstSector, sectors, mappedSector, zeroed, tag);
    this.#waitingBytes += MAPPING_BYTES;
  }

  /** Stores the first `entries` of what waits and flushes. When that fails they wait still. Calls must not overlap. */
  async store(entries: number): Promise<void> {
    if (entries === 0) return;
    const bytes = entries * MAPPING_BYTES;
    await this.#file.write(this.#end, this.#waiting.slice(0, bytes));
    await this.#file.flush();
    this.#waiting.copyWithin(0, bytes, this.#waitingBytes);
    this.#waitingBytes -= bytes;
    this.#end += bytes;
  }

  async resize(virtualSize: number): Promise<void> {
    await writeVirtualSize(this.#file, virtualSize);
  }

  async close(): Promise<void> {
    await this.#file.close();
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
