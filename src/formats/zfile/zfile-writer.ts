import type { ByteSink } from "../../bytes/sink.ts";
import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { BlockAlgorithm, CompressBlocks, CompressedBatch } from "../../compression/block-codec.ts";
import { LazyError, unsupported } from "../../errors.ts";
import {
  ALGORITHM_CODES,
  FLAG_DATA,
  FLAG_DIGEST,
  FLAG_HEADER,
  FLAG_HEADER_OVERWRITTEN,
  FLAG_SEALED,
  MAX_BLOCK_SIZE,
  MAX_STORED_BLOCK_BYTES,
  recordDigest,
  ZFILE_MAGIC,
  ZFILE_MEANINGFUL_BYTES,
  ZFILE_RECORD_BYTES,
  zfileRecord,
} from "./layout.ts";

/** Bytes of input in one call of `compress`, rounded down to whole blocks. */
const BATCH_BYTES = 1 << 20;
/** Small ZFiles are many: the first batch grows as it is filled, by this factor. */
const BATCH_GROWTH = 4;
/** Batches that are being compressed or wait to be written. */
const MAX_BATCHES = 6;

export interface ZFileOptions {
  readonly algorithm: BlockAlgorithm;
  /** Bytes of input in each block: a power of two, 4096 to 65536. Default 4096. */
  readonly blockSize?: number;
  readonly compress: CompressBlocks;
  /** Make a header that carries the trailer's fields, for the caller to put at offset 0 once `close` has told it. */
  readonly overwriteHeader: boolean;
}

export interface ZFileSummary {
  /** The final first 512 bytes. They differ from what was written when `overwriteHeader` is set: put them at offset 0. */
  readonly header: Uint8Array;
  /** Bytes written to the sink. */
  readonly bytes: number;
  readonly originalBytes: number;
}

/**
 * Writes a ZFile front to back: header, blocks, index, trailer. Several batches are compressed at once; their order is kept.
 * The sink stays open, for what follows the ZFile in it. Calls must not overlap; after an error the writer is unusable.
 */
export class ZFileWriter {
  readonly #sink: Pick<ByteSink, "write">;
  readonly #options: ZFileOptions;
  readonly #blockSize: number;
  readonly #batchBytes: number;
  #batch: Uint8Array;
  #batchFill = 0;
  readonly #freeBatches: Uint8Array[] = [];
  /** Of batches that have been written, for what others are compressed to. */
  readonly #spares: ArrayBuffer[] = [];
  readonly #underway: Promise<void>[] = [];
  #lastWrite: Promise<void>;
  #index = new Uint32Array(1024);
  #blocks = 0;
  #originalBytes = 0;
  #storedBytes = 0;
  /** A call that fails never makes the writer ready again. */
  #state: "ready" | "writing" | "closed" = "ready";

  constructor(sink: Pick<ByteSink, "write">, options: ZFileOptions) {
    const blockSize = options.blockSize ?? 4096;
    if (!Number.isInteger(Math.log2(blockSize)) || blockSize < 4096 || blockSize > MAX_BLOCK_SIZE) {
      throw new LazyError("USAGE", `ZFile block size is ${blockSize}, expected a power of two from 4096 to ${MAX_BLOCK_SIZE}`);
    }
    this.#sink = sink;
    this.#options = options;
    this.#blockSize = blockSize;
    this.#batchBytes = BATCH_BYTES - (BATCH_BYTES % blockSize);
    this.#batch = new Uint8Array(blockSize);
    this.#lastWrite = this.#sink.write(this.#record(FLAG_HEADER | FLAG_DATA | FLAG_DIGEST, 0));
    this.#lastWrite.catch(() => {});
  }

  /** Takes the bytes of the original file in order; they may be reused when the promise resolves. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#begin("write");
    for (let at = 0; at < bytes.length;) {
      if (this.#batchFill === this.#batch.length) this.#growBatch();
      const taken = Math.min(bytes.length - at, this.#batch.length - this.#batchFill);
      this.#batch.set(bytes.subarray(at, at + taken), this.#batchFill);
      this.#batchFill += taken;
      at += taken;
      if (this.#batchFill === this.#batchBytes) await this.#submit();
    }
    this.#originalBytes += bytes.length;
    this.#state = "ready";
  }

  /** Takes the next blocks compressed, as `compress` would have made them from `originalBytes` bytes, after whole blocks only. */
  async writeBatch(batch: CompressedBatch, originalBytes: number): Promise<void> {
    this.#begin("write");
    if (this.#batchFill % this.#blockSize !== 0) {
      throw new LazyError("USAGE", `ZFile writer: blocks come after ${this.#batchFill} bytes, expected whole blocks of ${this.#blockSize}`);
    }
    if (this.#batchFill > 0) await this.#submit();
    await this.#lastWrite;
    await this.#put(batch, originalBytes);
    this.#originalBytes += originalBytes;
    this.#state = "ready";
  }

  /** Writes what is left, the index and the trailer. */
  async close(): Promise<ZFileSummary> {
    this.#begin("close");
    if (this.#batchFill > 0) await this.#submit();
    await this.#lastWrite;

    const index = new Uint8Array(this.#blocks * 4);
    const view = new DataView(index.buffer);
    for (let block = 0; block < this.#blocks; block++) view.setUint32(block * 4, this.#index[block], true);
    await this.#sink.write(index);

    const indexCrc = crc32cRaw(0, index);
    await this.#sink.write(this.#record(FLAG_DATA | FLAG_SEALED | FLAG_DIGEST, indexCrc));
    const header = this.#options.overwriteHeader
      ? this.#record(FLAG_HEADER | FLAG_DATA | FLAG_HEADER_OVERWRITTEN | FLAG_DIGEST, indexCrc)
      : this.#record(FLAG_HEADER | FLAG_DATA | FLAG_DIGEST, 0);
    this.#state = "closed";
    this.#dropBuffers();
    return { header, bytes: 2 * ZFILE_RECORD_BYTES + this.#storedBytes + index.length, originalBytes: this.#originalBytes };
  }

  /** Who made the ZFile may keep the writer for longer: a layer's, until its image is complete. */
  #dropBuffers(): void {
    this.#freeBatches.length = 0;
    this.#spares.length = 0;
    this.#batch = new Uint8Array(0);
    this.#index = new Uint32Array(0);
  }

  #begin(call: string): void {
    if (this.#state !== "ready") {
      const why = this.#state === "closed" ? "it is closed" : "another call is underway or has failed";
      throw new LazyError("USAGE", `ZFile writer: cannot ${call}: ${why}`);
    }
    this.#state = "writing";
  }

  /** Sends the batch off and waits while too many are underway. */
  async #submit(): Promise<void> {
    const buffer = this.#batch;
    const input = buffer.subarray(0, this.#batchFill);
    const compressed = this.#options.compress(this.#options.algorithm, input, this.#blockSize, this.#spares.pop());
    const before = this.#lastWrite;
    const written = (async () => {
      const [batch] = await Promise.all([compressed, before]);
      if (buffer.length === this.#batchBytes) this.#freeBatches.push(buffer);
      await this.#put(batch, input.length);
      this.#spares.push(batch.bytes.buffer);
    })();
    written.catch(() => {}); // reported by whoever awaits it in `submit` or `close`
    this.#lastWrite = written;
    this.#underway.push(written);
    if (this.#underway.length >= MAX_BATCHES) await this.#underway.shift();
    this.#batch = this.#freeBatches.pop() ?? new Uint8Array(this.#batchBytes);
    this.#batchFill = 0;
  }

  async #put(batch: CompressedBatch, inputBytes: number): Promise<void> {
    const expected = Math.ceil(inputBytes / this.#blockSize);
    if (batch.storedBytes.length !== expected) {
      throw new LazyError(
        "USAGE",
        `ZFile writer: compressor made ${batch.storedBytes.length} blocks of ${inputBytes} bytes, expected ${expected}`,
      );
    }
    this.#reserveIndex(this.#blocks + expected);
    let total = 0;
    for (const stored of batch.storedBytes) {
      if (stored > MAX_STORED_BLOCK_BYTES) throw this.#tooLarge(stored);
      this.#index[this.#blocks++] = stored;
      total += stored;
    }
    if (total !== batch.bytes.length)
      throw new LazyError("USAGE", `ZFile writer: compressor made ${batch.bytes.length} bytes, its sizes say ${total}`);
    await this.#sink.write(batch.bytes);
    this.#storedBytes += total;
  }

  #tooLarge(stored: number): LazyError {
    return unsupported(
      `ZFile writer: block ${this.#blocks} of ${this.#blockSize} bytes does not shrink and would be stored in ${stored}; ` +
        `readers fetch at most ${MAX_STORED_BLOCK_BYTES} (CRC included): use blocks of ${this.#blockSize / 2} bytes or less`,
    );
  }

  #growBatch(): void {
    const grown = new Uint8Array(Math.min(this.#batch.length * BATCH_GROWTH, this.#batchBytes));
    grown.set(this.#batch);
    this.#batch = grown;
  }

  #reserveIndex(entries: number): void {
    if (entries <= this.#index.length) return;
    const grown = new Uint32Array(Math.max(entries, this.#index.length * 2));
    grown.set(this.#index);
    this.#index = grown;
  }

  #record(flags: number, indexCrc: number): Uint8Array {
    const complete = (flags & (FLAG_SEALED | FLAG_HEADER_OVERWRITTEN)) !== 0;
    const record = zfileRecord.encode({
      magic: ZFILE_MAGIC,
      recordBytes: ZFILE_MEANINGFUL_BYTES,
      flags,
      indexOffset: complete ? ZFILE_RECORD_BYTES + this.#storedBytes : 0,
      indexEntries: complete ? this.#blocks : 0,
      originalBytes: complete ? this.#originalBytes : 0,
      indexCrc,
      blockSize: this.#blockSize,
      algorithm: ALGORITHM_CODES[this.#options.algorithm],
      verify: 1,
    });
    zfileRecord.encodeInto(record, { digest: recordDigest(record) });
    return record;
  }
}
