import { SharedChunks, type SharedChunksData } from "../cache/shared-chunks.ts";
import { LazyError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { SegmentTable, ZEROS } from "../formats/lsmt/segment-table.ts";
import { blockLength, decodeBlock, type ZFileBlocks } from "../formats/zfile/zfile-reader.ts";

/** What a worker needs to read cached parts of a device: shared memory and plain data only. */
export interface CachedReaderData {
  readonly size: number;
  /** The merged segments of all layers; tags select the file. */
  readonly segments: SharedArrayBuffer;
  readonly segmentCount: number;
  readonly files: readonly CachedFileData[];
  /** As long as its first element is not zero, nothing is read here: all reads are to be seen elsewhere. */
  readonly held?: Int32Array | undefined;
}

export interface CachedFileData {
  /** The bytes that are stored of the file: chunks on disk, of which some may be missing, or all of them in memory. */
  readonly stored: SharedChunksData | SharedArrayBuffer;
  /** Where the file, or the ZFile that holds it, begins in them. */
  readonly payloadOffset: number;
  readonly blocks: ZFileBlocks | undefined;
}

/** Stored bytes that are read from the cache at a time. */
const MAX_STORED_BYTES = 2 ** 20;

/** Reads on any thread, and without waiting, what the cache holds of a device. */
export function openSyncReader(data: CachedReaderData): CachedReader {
  return new CachedReader(data);
}

class CachedReader {
  readonly #size: number;
  readonly #segments: SegmentTable;
  readonly #files: CachedFile[];
  readonly #held: Int32Array | undefined;

  constructor({ size, segments, segmentCount, files, held }: CachedReaderData) {
    this.#size = size;
    this.#held = held;
    this.#segments = new SegmentTable(segments, segmentCount);
    this.#files = files.map((file) => new CachedFile(file));
  }

  /** Fills `target` with the device's bytes at `offset`; false when some of them are not cached, or not as they should be. */
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
      else complete = this.#files[tag].read(mappedSector * SECTOR_BYTES + start - pieceStart, piece);
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
    this.#stored = stored instanceof SharedArrayBuffer ? new MemoryBytes(stored) : new SharedChunks(stored);
    this.#payloadOffset = payloadOffset;
    this.#blocks = blocks;
  }

  read(offset: number, target: Uint8Array): boolean {
    if (this.#blocks === undefined) return this.#stored.readSync(this.#payloadOffset + offset, target, true);
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
      if (!this.#stored.readSync(this.#payloadOffset + base, stored, !blocks.verify)) return false;
      for (; block < stop; block++) {
        putBlock(blocks, block, stored.subarray(offsets[block] - base, offsets[block + 1] - base), target, offset);
      }
    }
    return true;
  }

  #buffer(bytes: number): Uint8Array {
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes * 2);
    return this.#scratch.subarray(0, bytes);
  }
}

/** Reads without waiting what is there; false when it is not. */
interface StoredBytes {
  readSync(offset: number, target: Uint8Array, verifyAlways: boolean): boolean;
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

/** Decodes a block into the part of `target`, which begins at `offset` of the original, that it covers. */
function putBlock(blocks: ZFileBlocks, block: number, stored: Uint8Array, target: Uint8Array, offset: number): void {
  const bytes = blockLength(blocks, block);
  const at = block * blocks.blockSize - offset;
  if (at >= 0 && at + bytes <= target.length) {
    decodeBlock(blocks, block, stored, target.subarray(at, at + bytes));
    return;
  }
  const whole = Buffer.allocUnsafe(bytes);
  decodeBlock(blocks, block, stored, whole);
  target.set(whole.subarray(Math.max(0, -at), Math.min(bytes, target.length - at)), Math.max(0, at));
}
