import { lz4Bound, lz4Compress, lz4Decompress } from "../../compression/lz4.ts";

/** Blocks are kept one behind the other in chunks of this size. */
const CHUNK_BYTES = 1 << 20;
/** In front of each block: its number in 6 bytes, and how many bytes it takes. */
const HEADER_BYTES = 8;
/** Chunks that are kept for blocks to come. */
const MAX_SPARE = 2;

interface Chunk {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** Bytes written, and how many of them belong to blocks that are still wanted. */
  used: number;
  live: number;
}

/** Compressed blocks in a few large buffers: a block takes its bytes and a number, no objects. */
export class PackedBlocks {
  readonly #blockBytes: number;
  readonly #chunks: (Chunk | undefined)[] = [];
  readonly #spare: Chunk[] = [];
  /** Where each block is: chunk × CHUNK_BYTES + offset. */
  readonly #places = new Map<number, number>();
  #last = -1;

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
  }

  /** Chunks that hold blocks. */
  get chunkCount(): number {
    return this.#chunks.filter((chunk) => chunk !== undefined).length;
  }

  /** Adds a block that is not there yet. */
  add(block: number, content: Uint8Array): void {
    const number = this.#chunkFor(HEADER_BYTES + lz4Bound(content.length));
    const chunk = this.#chunks[number]!;
    const from = chunk.used + HEADER_BYTES;
    const end = lz4Compress(viewOf(content), 0, content.length, chunk.view, from);
    writeHeader(chunk.view, chunk.used, block, end - from);
    this.#places.set(block, number * CHUNK_BYTES + chunk.used);
    chunk.live += end - chunk.used;
    chunk.used = end;
  }

  /** Writes a block's content to `into`, zeros where there is none. */
  read(block: number, into: Uint8Array): void {
    const place = this.#places.get(block);
    if (place === undefined) {
      into.fill(0);
      return;
    }
    const { view } = this.#chunks[Math.floor(place / CHUNK_BYTES)]!;
    const at = place % CHUNK_BYTES;
    const from = at + HEADER_BYTES;
    lz4Decompress(view, from, from + view.getUint16(at + 6, true), viewOf(into), 0, this.#blockBytes);
  }

  delete(block: number): void {
    const place = this.#places.get(block);
    if (place === undefined) return;
    this.#places.delete(block);
    const number = Math.floor(place / CHUNK_BYTES);
    const chunk = this.#chunks[number]!;
    chunk.live -= HEADER_BYTES + chunk.view.getUint16((place % CHUNK_BYTES) + 6, true);
    if (number !== this.#last && chunk.live < CHUNK_BYTES / 2) this.#evacuate(number, chunk);
  }

  /** Moves what is left in a chunk elsewhere. */
  #evacuate(number: number, chunk: Chunk): void {
    for (let at = 0; at < chunk.used;) {
      const block = chunk.view.getUint32(at, true) + chunk.view.getUint16(at + 4, true) * 2 ** 32;
      const end = at + HEADER_BYTES + chunk.view.getUint16(at + 6, true);
      if (this.#places.get(block) === number * CHUNK_BYTES + at) this.#move(block, chunk.bytes.subarray(at, end));
      at = end;
    }
    this.#chunks[number] = undefined;
    if (this.#spare.length < MAX_SPARE) this.#spare.push(chunk);
  }

  #move(block: number, record: Uint8Array): void {
    const number = this.#chunkFor(record.length);
    const chunk = this.#chunks[number]!;
    chunk.bytes.set(record, chunk.used);
    this.#places.set(block, number * CHUNK_BYTES + chunk.used);
    chunk.used += record.length;
    chunk.live += record.length;
  }

  /** The number of a chunk that has room for `bytes` more. */
  #chunkFor(bytes: number): number {
    const number = this.#last;
    const last = this.#chunks[number];
    if (last && last.used + bytes <= CHUNK_BYTES) return number;
    const hole = this.#chunks.indexOf(undefined);
    this.#last = hole < 0 ? this.#chunks.length : hole;
    this.#chunks[this.#last] = emptied(this.#spare.pop() ?? newChunk());
    // Less than half of a chunk leaves room for more in the new one.
    if (last && last.live < CHUNK_BYTES / 2) this.#evacuate(number, last);
    return this.#last;
  }
}

function newChunk(): Chunk {
  const bytes = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  return { bytes, view: viewOf(bytes), used: 0, live: 0 };
}

function emptied(chunk: Chunk): Chunk {
  chunk.used = 0;
  chunk.live = 0;
  return chunk;
}

function writeHeader(view: DataView, at: number, block: number, bytes: number): void {
  view.setUint32(at, block, true);
  view.setUint16(at + 4, Math.floor(block / 2 ** 32), true);
  view.setUint16(at + 6, bytes, true);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
