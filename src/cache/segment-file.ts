import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { raw, Struct, u32, u64 } from "../bytes/struct.ts";
import { SEGMENT_DATA_OFFSET, type SharedChunks } from "./shared-chunks.ts";

/** Chunks in one segment file; the slot table of 8 bytes a chunk fits between header and data. */
export const SEGMENT_CHUNKS = 256;

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

const slot = new Struct(SLOT_BYTES, {
  checksum: [0, u32],
  /** Ties the checksum to its place, so that zeros or bytes from elsewhere never look like a stored chunk. */
  check: [4, u32],
});

function checkOf(chunk: number, checksum: number): number {
  const bytes = Buffer.alloc(16, "slot");
  bytes.writeUInt32LE(chunk >>> 0, 0);
  bytes.writeUInt32LE(checksum >>> 0, 4);
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
 * Everything in the file follows from its name, so processes that share it write the same bytes.
 */
export class SegmentFile {
  readonly path: string;
  readonly index: number;
  readonly #handle: FileHandle;
  readonly #chunks: SharedChunks;

  private constructor(path: string, index: number, handle: FileHandle, chunks: SharedChunks) {
    this.path = path;
    this.index = index;
    this.#handle = handle;
    this.#chunks = chunks;
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
      announce(front, index, chunks);
      chunks.publish(index, handle.fd);
      return new SegmentFile(path, index, handle, chunks);
    } catch (error) {
      await handle.close();
      throw error;
    }
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

  /** Stores neighbouring chunks: bytes first, then their slots. */
  async write(firstChunk: number, checksums: readonly number[], bytes: Uint8Array): Promise<void> {
    await writeFully(this.#handle, bytes, this.#chunks.fileOffset(firstChunk));
    const slots = new Uint8Array(checksums.length * SLOT_BYTES);
    checksums.forEach((checksum, i) => {
      slot.encodeInto(slots, { checksum, check: checkOf(firstChunk + i, checksum) }, i * SLOT_BYTES);
    });
    await writeFully(this.#handle, slots, SLOTS_OFFSET + (firstChunk % SEGMENT_CHUNKS) * SLOT_BYTES);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

function announce(front: Uint8Array, index: number, chunks: SharedChunks): void {
  const first = index * SEGMENT_CHUNKS;
  const end = Math.min(first + SEGMENT_CHUNKS, chunks.data.states.length);
  for (let chunk = first; chunk < end; chunk++) {
    const { checksum, check } = slot.decode(front, SLOTS_OFFSET + (chunk - first) * SLOT_BYTES);
    if (check === checkOf(chunk, checksum)) chunks.markStored(chunk, checksum | 0);
  }
}
