import { SharedChunks, type SharedChunksData } from "../cache/shared-chunks.ts";
import { LazyError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { SegmentTable, ZEROS } from "../formats/lsmt/segment-table.ts";
import { blockLength, decodeBlock, type ZFileBlocks } from "../formats/zfile/zfile-reader.ts";

/** What a worker needs to read cached parts of a device: shared memory and plain data only. */
export interface CachedReaderData {
  readonly size: number;
  /** The merged segments of all layers; tags select the layer. */
  readonly segments: SharedArrayBuffer;
  readonly segmentCount: number;
  readonly layers: readonly CachedLayerData[];
}

interface CachedLayerData {
  readonly chunks: SharedChunksData;
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
  readonly #layers: CachedLayer[];

  constructor({ size, segments, segmentCount, layers }: CachedReaderData) {
    this.#size = size;
    this.#segments = new SegmentTable(segments, segmentCount);
    this.#layers = layers.map((layer) => new CachedLayer(layer));
  }

  /** Fills `target` with the device's bytes at `offset`; false when some of them are not cached, or not as they should be. */
  readCached(offset: number, target: Uint8Array): boolean {
    const end = offset + target.length;
    if (offset < 0 || end > this.#size) return false;
    if (target.length === 0) return true; // nothing of the sector that it lies in is needed
    let complete = true;
    this.#segments.forRange(Math.floor(offset / SECTOR_BYTES), Math.ceil(end / SECTOR_BYTES), (firstSector, sectors, mappedSector, tag) => {
      if (!complete) return;
      const pieceStart = firstSector * SECTOR_BYTES;
      const start = Math.max(pieceStart, offset);
      const piece = target.subarray(start - offset, Math.min(pieceStart + sectors * SECTOR_BYTES, end) - offset);
      if (mappedSector === ZEROS) piece.fill(0);
      else complete = this.#layers[tag].read(mappedSector * SECTOR_BYTES + start - pieceStart, piece);
    });
    return complete;
  }
}

class CachedLayer {
  readonly #chunks: SharedChunks;
  readonly #payloadOffset: number;
  readonly #blocks: ZFileBlocks | undefined;
  #stored = Buffer.alloc(0);

  constructor({ chunks, payloadOffset, blocks }: CachedLayerData) {
    this.#chunks = new SharedChunks(chunks);
    this.#payloadOffset = payloadOffset;
    this.#blocks = blocks;
  }

  read(offset: number, target: Uint8Array): boolean {
    if (this.#blocks === undefined) return this.#chunks.readSync(this.#payloadOffset + offset, target, true);
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
      const stored = this.#scratch(offsets[stop] - base);
      if (!this.#chunks.readSync(this.#payloadOffset + base, stored, !blocks.verify)) return false;
      for (; block < stop; block++) {
        putBlock(blocks, block, stored.subarray(offsets[block] - base, offsets[block + 1] - base), target, offset);
      }
    }
    return true;
  }

  #scratch(bytes: number): Uint8Array {
    if (this.#stored.length < bytes) this.#stored = Buffer.alloc(bytes * 2);
    return this.#stored.subarray(0, bytes);
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
