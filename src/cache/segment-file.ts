import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { raw, Struct, u32, u64 } from "../bytes/struct.ts";
import { SEGMENT_DATA_OFFSET, type SharedChunks } from "./shared-chunks.ts";

/** Chunks in one segment file; the slot table of 8 bytes a chunk fits between header and data. */
export const SEGMENT_CHUNKS = 256;

/** A process that says no more than once that it fetches a chunk is waited for so long. */
export const CLAIM_MS = 2_000;

/** Neighbouring chunks that are in one segment. */
export interface SegmentChunks {
  readonly index: number;
  readonly first: number;
  readonly count: number;
}

/** Cuts neighbouring chunks where a segment ends. */
export function* bySegment(first: number, count: number): Generator<SegmentChunks> {
  const end = first + count;
  for (let chunk = first; chunk < end;) {
    const index = Math.floor(chunk / SEGMENT_CHUNKS);
    const stop = Math.min(end, (index + 1) * SEGMENT_CHUNKS);
    yield { index, first: chunk, count: stop - chunk };
    chunk = stop;
  }
}

const SLOTS_OFFSET = 64;
const SLOT_BYTES = 8;
const MAGIC = Buffer.from("lazyblk1", "latin1");

const header = new Struct(SLOTS_OFFSET, {
  magic: [0, raw(8)],
  chunkBytes: [8, u32],
  segment: [12, u32],
  blobBytes: [16, u64],
  keyChecksum: [24, u32],
  checksum: [60, u32],
});

/**
 * What a chunk's slot says: that it is stored, that a process fetches it, or nothing. No struct, as all of a segment's slots are looked at
 * before something is fetched. First the checksum of the stored chunk; of one that is being fetched, when others need not wait for that any
 * more, in milliseconds modulo 2^32.
 */
const VALUE_OFFSET = 0;
/** Then what ties the value to its place and its meaning, so that zeros or bytes from elsewhere mean nothing. */
const CHECK_OFFSET = 4;

function checkOf(meaning: "slot" | "claim", chunk: number, value: number): number {
  const bytes = Buffer.alloc(16, meaning);
  bytes.writeUInt32LE(chunk >>> 0, 0);
  bytes.writeUInt32LE(value >>> 0, 4);
  return crc32(bytes);
}

function encodeHeader(key: string, segment: number, chunks: SharedChunks): Uint8Array {
  const bytes = header.encode({
    magic: MAGIC,
    chunkBytes: chunks.data.chunkBytes,
    segment,
    blobBytes: chunks.data.size,
    keyChecksum: crc32(key),
  });
  header.encodeInto(bytes, { checksum: crc32(bytes) });
  return bytes;
}

/**
 * One file of the cache: a header, a slot for each chunk, then the chunks at fixed places.
 * A chunk counts once its slot is written, after its bytes; a slot that lies is found out by the chunk's checksum.
 * Everything in the file follows from its name, so processes that share it write the same bytes. A process that fetches chunks says so in
 * their slots, so that others wait for it; that is a courtesy, and a claim of one that is gone soon counts no more.
 */
export class SegmentFile {
  readonly path: string;
  readonly index: number;
  readonly #handle: FileHandle;
  readonly #chunks: SharedChunks;
  /** Until when others have claimed chunks, in milliseconds since 1970, as of the last look. */
  #claims: ReadonlyMap<number, number>;
  /** The last write of slots; they keep their order. */
  #slotWrites: Promise<void> = Promise.resolve();
  /** Chunks that were wrong: others may store the same again, so they count only once they were stored from here. */
  readonly #distrusted = new Set<number>();

  private constructor(path: string, index: number, handle: FileHandle, chunks: SharedChunks, front: Buffer) {
    this.path = path;
    this.index = index;
    this.#handle = handle;
    this.#chunks = chunks;
    this.#claims = announce(front, index, chunks, this.#distrusted);
  }

  /** Opens or makes the file and announces the chunks it holds. Fails as the file system does. */
  static async open(path: string, key: string, index: number, chunks: SharedChunks): Promise<SegmentFile> {
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      const front = Buffer.alloc(SEGMENT_DATA_OFFSET);
      await handle.read(front, 0, front.length, 0);
      const expected = encodeHeader(key, index, chunks);
      if (!front.subarray(0, SLOTS_OFFSET).equals(expected)) {
        front.fill(0).set(expected);
        await handle.write(front, 0, front.length, 0);
      }
      const file = new SegmentFile(path, index, handle, chunks, front);
      chunks.publish(index, handle.fd);
      return file;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Announces what other processes have stored meanwhile, and sees what they fetch. False when the file was evicted. */
  async look(): Promise<boolean> {
    await this.#slotWrites;
    if (await this.isEvicted()) return false;
    const front = Buffer.alloc(SEGMENT_DATA_OFFSET);
    await this.#handle.read(front, 0, front.length, 0);
    this.#claims = announce(front, this.index, this.#chunks, this.#distrusted);
    return true;
  }

  /** Whether a process is fetching the chunk, as of the last look. */
  isClaimed(chunk: number): boolean {
    const left = (this.#claims.get(chunk) ?? 0) - Date.now();
    return left > 0 && left <= CLAIM_MS;
  }

  /** Somebody else has removed the file: what is in it takes disk space until it is closed, and nobody else will find it. */
  async isEvicted(): Promise<boolean> {
    return (await this.#handle.stat()).nlink === 0;
  }

  /** Says to other processes that the segment is in use. */
  async touch(): Promise<void> {
    const now = new Date();
    await this.#handle.utimes(now, now);
  }

  /** Says to other processes that chunks are being fetched, for `CLAIM_MS`. */
  async claim(firstChunk: number, count: number): Promise<void> {
    const end = (Date.now() + CLAIM_MS) >>> 0;
    await this.#writeSlots(
      "claim",
      firstChunk,
      Array.from({ length: count }, () => end),
    );
  }

  /** Takes back what is said of chunks that are wrong. */
  async distrust(firstChunk: number, count: number): Promise<void> {
    for (let chunk = firstChunk; chunk < firstChunk + count; chunk++) this.#distrusted.add(chunk);
    await this.clear(firstChunk, count);
  }

  /** Takes back what is said of chunks. */
  async clear(firstChunk: number, count: number): Promise<void> {
    await this.#writeSlots(
      "nothing",
      firstChunk,
      Array.from({ length: count }, () => 0),
    );
  }

  /** Reads neighbouring chunks as they are on disk, unchecked; shorter when the file ends early. */
  async read(firstChunk: number, bytes: number): Promise<Uint8Array> {
    const target = Buffer.allocUnsafe(bytes);
    let done = 0;
    while (done < bytes) {
      const position = this.#chunks.fileOffset(firstChunk) + done;
      const { bytesRead } = await this.#handle.read(target, done, bytes - done, position);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return target.subarray(0, done);
  }

  /** Stores neighbouring chunks: bytes first, then their slots, unless the chunks are not wanted any more by then. */
  async write(firstChunk: number, checksums: readonly number[], bytes: Uint8Array, areWanted: () => boolean): Promise<void> {
    await writeFully(this.#handle, bytes, this.#chunks.fileOffset(firstChunk));
    await this.#writeSlots("slot", firstChunk, checksums, () => {
      if (!areWanted()) return false;
      for (let i = 0; i < checksums.length; i++) this.#distrusted.delete(firstChunk + i);
      return true;
    });
  }

  async close(): Promise<void> {
    await this.#slotWrites;
    await this.#handle.close();
  }

  async #writeSlots(
    meaning: "slot" | "claim" | "nothing",
    firstChunk: number,
    values: readonly number[],
    areWanted = () => true,
  ): Promise<void> {
    const slots = Buffer.alloc(values.length * SLOT_BYTES);
    if (meaning !== "nothing") {
      values.forEach((value, i) => {
        slots.writeUInt32LE(value, i * SLOT_BYTES + VALUE_OFFSET);
        slots.writeUInt32LE(checkOf(meaning, firstChunk + i, value), i * SLOT_BYTES + CHECK_OFFSET);
      });
    }
    const place = SLOTS_OFFSET + (firstChunk % SEGMENT_CHUNKS) * SLOT_BYTES;
    const writing = this.#slotWrites.then(async () => {
      if (areWanted()) await writeFully(this.#handle, slots, place);
    });
    this.#slotWrites = writing.catch(() => {});
    await writing;
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

/** Marks what is stored, unless that is known, or not believed; answers until when chunks are claimed. */
function announce(front: Buffer, index: number, chunks: SharedChunks, distrusted: ReadonlySet<number>): Map<number, number> {
  const first = index * SEGMENT_CHUNKS;
  const end = Math.min(first + SEGMENT_CHUNKS, chunks.data.states.length);
  const claims = new Map<number, number>();
  for (let chunk = first; chunk < end; chunk++) {
    const at = SLOTS_OFFSET + (chunk - first) * SLOT_BYTES;
    const check = front.readUInt32LE(at + CHECK_OFFSET);
    if (check === 0 || chunks.isStored(chunk) || distrusted.has(chunk)) continue;
    const value = front.readUInt32LE(at + VALUE_OFFSET);
    if (check === checkOf("slot", chunk, value)) chunks.markStored(chunk, value | 0);
    else if (check === checkOf("claim", chunk, value)) claims.set(chunk, unwrapped(value));
  }
  return claims;
}

/** The time that these 32 bits stand for, the one nearest to now. */
function unwrapped(milliseconds: number): number {
  const now = Date.now();
  return now + ((milliseconds - now) | 0);
}
