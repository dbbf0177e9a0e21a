import { readFully, SharedChunks, type SharedChunksData } from "../cache/shared-chunks.ts";
import { LazyError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { SegmentTable, ZEROS } from "../formats/lsmt/segment-table.ts";
import { decodeRun, type ZFileBlocks } from "../formats/zfile/zfile-reader.ts";

/** What a worker needs to read the parts of a device that are on this machine: shared memory and plain data only. */
export interface CachedReaderData {
  readonly size: number;
  /** The merged segments of all layers; tags select the file. */
  readonly segments: SharedArrayBuffer;
  readonly segmentCount: number;
  /** Undefined for files of which nothing is. */
  readonly files: readonly (CachedFileData | undefined)[];
  /** As long as its first element is not zero, nothing is read here: all reads are to be seen elsewhere. */
  readonly held?: Int32Array | undefined;
}

export interface CachedFileData {
  /** The bytes that are stored of the file: chunks on disk, of which some may be missing, or all of them in memory or in a file. */
  readonly stored: SharedChunksData | SharedArrayBuffer | LocalFileData;
  /** Where the file, or the ZFile that holds it, begins in them. */
  readonly payloadOffset: number;
  readonly blocks: ZFileBlocks | undefined;
}

/** An open file that does not change. It is closed after the last reader has ended. */
export interface LocalFileData {
  readonly descriptor: number;
}

/** Stored bytes that are read at a time: what is decoded from them stays in a core's cache. */
const MAX_STORED_BYTES = 128 * 1024;

/** Reads on any thread, and without waiting for others, what is on this machine of a device. */
export function openSyncReader(data: CachedReaderData): CachedReader {
  return new CachedReader(data);
}

class CachedReader {
  readonly #size: number;
  readonly #segments: SegmentTable;
  readonly #files: (CachedFile | undefined)[];
  readonly #held: Int32Array | undefined;

  constructor({ size, segments, segmentCount, files, held }: CachedReaderData) {
    this.#size = size;
    this.#held = held;
    this.#segments = new SegmentTable(segments, segmentCount);
    this.#files = files.map((file) => (file === undefined ? undefined : new CachedFile(file)));
  }

  /** Fills `target` with the device's bytes at `offset`; false when some of them are not on this machine, or not as they should be. */
  readCached(offset: number, target: Uint8Array): boolean {
    const end = offset + target.length;
    if (offset < 0 || end > this.#size) return false;
    if (this.#held !== undefined && Atomics.load(this.#held, 0) !== 0) return false;
    if (target.length === 0) return true; // nothing of the sector that it lies in is needed
    let complete = true;
    this.#segments.forRange(Math.floor(offset / SECTOR_BYTES), Math.ceil(end / SECTOR_BYTES), (firstSector, sectors, mappedSector, tag) => {
      if (!complete) return;
      const pieceStart = firstSector * SECTOR_BYTES;
      const start = Math.max(pieceStart, offset);
      const piece = target.subarray(start - offset, Math.min(pieceStart + sectors * SECTOR_BYTES, end) - offset);
      if (mappedSector === ZEROS) piece.fill(0);
      else complete = this.#files[tag]?.read(mappedSector * SECTOR_BYTES + start - pieceStart, piece) === true;
    });
    return complete;
  }
}

class CachedFile {
  readonly #stored: StoredBytes;
  readonly #payloadOffset: number;
  readonly #blocks: ZFileBlocks | undefined;
  #scratch = Buffer.alloc(0);

  constructor({ stored, payloadOffset, blocks }: CachedFileData) {
    this.#stored = openStored(stored);
    this.#payloadOffset = payloadOffset;
    this.#blocks = blocks;
  }

  read(offset: number, target: Uint8Array): boolean {
    if (this.#blocks === undefined) return this.#stored.readSync(this.#payloadOffset + offset, target, false);
    try {
      return this.#readBlocks(this.#blocks, offset, target);
    } catch (error) {
      // The main thread finds the same, drops what is cached and asks the blob's place again.
      if (error instanceof LazyError && error.code === "CORRUPT") return false;
      throw error;
    }
  }

  #readBlocks(blocks: ZFileBlocks, offset: number, target: Uint8Array): boolean {
    const { blockSize, offsets } = blocks;
    const end = offset + target.length;
    const endBlock = Math.ceil(end / blockSize);
    if (end > blocks.originalBytes) return false;
    for (let block = Math.floor(offset / blockSize); block < endBlock;) {
      let stop = block + 1;
      while (stop < endBlock && offsets[stop + 1] - offsets[block] <= MAX_STORED_BYTES) stop++;
      const base = offsets[block];
      const stored = this.#buffer(offsets[stop] - base);
      if (!this.#stored.readSync(this.#payloadOffset + base, stored, blocks.verify)) return false;
      const runStart = block * blockSize;
      const part = target.subarray(Math.max(0, runStart - offset), Math.min(stop * blockSize - offset, target.length));
      decodeRun(blocks, block, stop, stored, Math.max(0, offset - runStart), part);
      block = stop;
    }
    return true;
  }

  #buffer(bytes: number): Uint8Array {
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes * 2);
    return this.#scratch.subarray(0, bytes);
  }
}

/** Reads without waiting what is there; false when it is not. With `isChecked` the caller checks the bytes. */
interface StoredBytes {
  readSync(offset: number, target: Uint8Array, isChecked: boolean): boolean;
}

function openStored(stored: CachedFileData["stored"]): StoredBytes {
  if (stored instanceof SharedArrayBuffer) return new MemoryBytes(stored);
  return "descriptor" in stored ? new LocalBytes(stored) : new SharedChunks(stored);
}

/** All of it is there, and was checked when it got there. */
class MemoryBytes implements StoredBytes {
  readonly #bytes: Uint8Array;

  constructor(shared: SharedArrayBuffer) {
    this.#bytes = new Uint8Array(shared);
  }

  readSync(offset: number, target: Uint8Array): boolean {
    const end = offset + target.length;
    if (offset < 0 || end > this.#bytes.length) return false;
    target.set(this.#bytes.subarray(offset, end));
    return true;
  }
}

/** All of it is in a file. What cannot be read the main thread tries again, and says why. */
class LocalBytes implements StoredBytes {
  readonly #descriptor: number;

  constructor({ descriptor }: LocalFileData) {
    this.#descriptor = descriptor;
  }

  readSync(offset: number, target: Uint8Array): boolean {
    return readFully(this.#descriptor, target, offset);
  }
}
