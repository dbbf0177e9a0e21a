import { readSync } from "node:fs";
import { crc32 } from "node:zlib";

/** Bytes in front of a segment file's first chunk: header and slot table. */
export const SEGMENT_DATA_OFFSET = 4096;

const ABSENT = 0;
const STORED = 1;

/** What a worker needs to read a blob's cached chunks: plain data, to be posted as it is. */
export interface SharedChunksData {
  readonly size: number;
  readonly chunkBytes: number;
  readonly segmentChunks: number;
  /** One of the two states for each chunk. */
  readonly states: Int32Array;
  /** CRC-32 of each stored chunk. */
  readonly checksums: Int32Array;
  /** File descriptor + 1 of each segment; 0 when it is not open. */
  readonly descriptors: Int32Array;
  /** Raised before a segment's descriptor is closed; a read that spans a change is void. */
  readonly generations: Int32Array;
  /** Tick of each segment's last use. */
  readonly lastUses: Int32Array;
  /** One element, counting uses of the whole cache. */
  readonly ticks: Int32Array;
}

/** A chunk that is being checked; nothing else runs on the thread meanwhile. */
let scratch = Buffer.alloc(0);

function sharedInts(count: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(count * 4));
}

/**
 * Which chunks of one blob are on disk, and where, in memory that all threads share.
 * The thread that owns the cache writes it; every thread may read chunks through it.
 */
export class SharedChunks {
  readonly data: SharedChunksData;

  constructor(data: SharedChunksData) {
    this.data = data;
  }

  static create(size: number, chunkBytes: number, segmentChunks: number, ticks: Int32Array): SharedChunks {
    const chunks = Math.ceil(size / chunkBytes);
    const segments = Math.ceil(chunks / segmentChunks);
    return new SharedChunks({
      size,
      chunkBytes,
      segmentChunks,
      states: sharedInts(chunks),
      checksums: sharedInts(chunks),
      descriptors: sharedInts(segments),
      generations: sharedInts(segments),
      lastUses: sharedInts(segments),
      ticks,
    });
  }

  lengthOf(chunk: number): number {
    return Math.min(this.data.chunkBytes, this.data.size - chunk * this.data.chunkBytes);
  }

  /** Offset of a chunk in its segment file. */
  fileOffset(chunk: number): number {
    return SEGMENT_DATA_OFFSET + (chunk % this.data.segmentChunks) * this.data.chunkBytes;
  }

  isStored(chunk: number): boolean {
    return Atomics.load(this.data.states, chunk) !== ABSENT;
  }

  markStored(chunk: number, checksum: number): void {
    this.data.checksums[chunk] = checksum;
    Atomics.store(this.data.states, chunk, STORED);
  }

  markAbsent(chunk: number): void {
    Atomics.store(this.data.states, chunk, ABSENT);
  }

  touch(segment: number): void {
    this.data.lastUses[segment] = Atomics.add(this.data.ticks, 0, 1);
  }

  publish(segment: number, descriptor: number): void {
    Atomics.store(this.data.descriptors, segment, descriptor + 1);
  }

  /** To be called before the segment's descriptor is closed. */
  withdraw(segment: number): void {
    const first = segment * this.data.segmentChunks;
    const end = Math.min(first + this.data.segmentChunks, this.data.states.length);
    for (let chunk = first; chunk < end; chunk++) this.markAbsent(chunk);
    Atomics.store(this.data.descriptors, segment, 0);
    Atomics.add(this.data.generations, segment, 1);
  }

  isIntact(chunk: number, bytes: Uint8Array): boolean {
    return bytes.length === this.lengthOf(chunk) && (crc32(bytes) | 0) === this.data.checksums[chunk];
  }

  /**
   * Fills `target` with the blob's bytes at `offset`, if all of them are on disk; else answers false.
   * With `isChecked` whoever asks checks the bytes by sums of their own, and they are taken as they are; otherwise the checksums of all
   * chunks that they are in are compared, which takes reading these chunks whole.
   */
  readSync(offset: number, target: Uint8Array, isChecked: boolean): boolean {
    const { chunkBytes, size } = this.data;
    if (offset < 0 || offset + target.length > size) return false;
    for (let done = 0; done < target.length;) {
      const chunk = Math.floor((offset + done) / chunkBytes);
      const inChunk = offset + done - chunk * chunkBytes;
      const length = Math.min(target.length - done, this.lengthOf(chunk) - inChunk);
      if (!this.#readPiece(chunk, inChunk, target.subarray(done, done + length), isChecked)) return false;
      done += length;
    }
    return true;
  }

  #readPiece(chunk: number, inChunk: number, target: Uint8Array, isChecked: boolean): boolean {
    const segment = Math.floor(chunk / this.data.segmentChunks);
    const generation = Atomics.load(this.data.generations, segment);
    const descriptor = Atomics.load(this.data.descriptors, segment) - 1;
    if (descriptor < 0 || !this.isStored(chunk)) return false;
    const complete = isChecked
      ? readFully(descriptor, target, this.fileOffset(chunk) + inChunk)
      : this.#readWhole(chunk, descriptor, inChunk, target);
    if (Atomics.load(this.data.generations, segment) !== generation) return false;
    if (!complete) {
      this.markAbsent(chunk);
      return false;
    }
    this.touch(segment);
    return true;
  }

  #readWhole(chunk: number, descriptor: number, inChunk: number, target: Uint8Array): boolean {
    if (scratch.length < this.data.chunkBytes) scratch = Buffer.alloc(this.data.chunkBytes);
    const bytes = scratch.subarray(0, this.lengthOf(chunk));
    if (!readFully(descriptor, bytes, this.fileOffset(chunk)) || !this.isIntact(chunk, bytes)) return false;
    target.set(bytes.subarray(inChunk, inChunk + target.length));
    return true;
  }
}

/** False when the file ends early, cannot be read, or its descriptor was closed meanwhile. */
export function readFully(descriptor: number, target: Uint8Array, position: number): boolean {
  try {
    for (let done = 0; done < target.length;) {
      const count = readSync(descriptor, target, done, target.length - done, position + done);
      if (count === 0) return false;
      done += count;
    }
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error) return false;
    throw error;
  }
}
