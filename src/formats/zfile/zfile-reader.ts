import { crc32cRaw } from "../../bytes/crc32c.ts";
import { checkRange, type ByteSource } from "../../bytes/source.ts";
import { BLOCK_CRC_BYTES, BLOCK_CRC_SEED, decompressBlock, storedBound, type BlockAlgorithm } from "../../compression/block-codec.ts";
import { corrupt, LazyError, messageOf } from "../../errors.ts";
import { ZFILE_MAGIC } from "./layout.ts";
import { readZFileRecords } from "./zfile-records.ts";

/** The most that one read of the source asks for. */
const MAX_READ_BYTES = 4 << 20;

/**
 * Where the blocks of a ZFile lie. Plain data over shared memory, so that a worker can be given it and decode on its own
 * with `decodeBlock`.
 */
export interface ZFileBlocks {
  /** A name for messages. */
  readonly name: string;
  readonly algorithm: BlockAlgorithm;
  /** Bytes of the original in each block but the last. */
  readonly blockSize: number;
  readonly originalBytes: number;
  /** Each stored block is followed by the CRC of its compressed bytes. */
  readonly verify: boolean;
  /** Offset in the source of each stored block, and of the end of the last: one more than there are blocks. In shared memory. */
  readonly offsets: Float64Array;
}

/** True when the bytes (24 or more) are the start of a ZFile. */
export function isZFile(head: Uint8Array): boolean {
  return head.length >= ZFILE_MAGIC.length && Buffer.compare(head.subarray(0, ZFILE_MAGIC.length), ZFILE_MAGIC) === 0;
}

/**
 * Opens a ZFile. Header, trailer and index are checked against each other and against their checksums where they carry any.
 * Throws `CORRUPT` for what is not a ZFile or contradicts itself, `UNSUPPORTED` for what no known writer makes.
 * Closing the reader closes the source.
 */
export async function openZFile(source: ByteSource): Promise<ZFileReader> {
  const { record, index } = await readZFileRecords(source);
  const algorithm = record.algorithm === 1 ? "lz4" : "zstd";
  const overhead = record.verify ? BLOCK_CRC_BYTES : 0;
  const bound = storedBound(record.blockSize);
  const offsets = new Float64Array(new SharedArrayBuffer((record.indexEntries + 1) * 8));
  const view = new DataView(index.buffer, index.byteOffset, index.byteLength);
  let at = 512;
  for (let block = 0; block < record.indexEntries; block++) {
    const stored = view.getUint32(block * 4, true);
    if (stored <= overhead || stored > bound) {
      throw corrupt(`${source.name}: zfile index: block ${block} is stored in ${stored} bytes, expected ${overhead + 1} to ${bound}`);
    }
    offsets[block] = at;
    at += stored;
  }
  offsets[record.indexEntries] = at;
  if (at !== record.indexOffset) throw corrupt(`${source.name}: zfile blocks end at ${at}, the index begins at ${record.indexOffset}`);
  const { blockSize, originalBytes } = record;
  return new ZFileReader(source, { name: source.name, algorithm, blockSize, originalBytes, verify: record.verify !== 0, offsets });
}

/** The original bytes of a ZFile. Every block that is read is checked against its CRC. */
export class ZFileReader implements ByteSource {
  readonly blocks: ZFileBlocks;
  readonly #source: ByteSource;

  constructor(source: ByteSource, blocks: ZFileBlocks) {
    this.#source = source;
    this.blocks = blocks;
  }

  get name(): string {
    return this.#source.name;
  }

  get size(): number {
    return this.blocks.originalBytes;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const output = Buffer.allocUnsafe(length);
    if (length === 0) return output;
    const { blockSize, offsets } = this.blocks;
    const lastBlock = Math.floor((offset + length - 1) / blockSize);
    let block = Math.floor(offset / blockSize);
    while (block <= lastBlock) {
      const start = offsets[block];
      let stop = block + 1;
      while (stop <= lastBlock && offsets[stop + 1] - start <= MAX_READ_BYTES) stop++;
      const stored = await this.#source.read(start, offsets[stop] - start);
      for (; block < stop; block++) {
        copyBlock(this.blocks, block, stored.subarray(offsets[block] - start, offsets[block + 1] - start), output, offset);
      }
    }
    return output;
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}

/** Decodes one block and puts the part of it that `output`, which begins at `outputOffset` of the original, asks for. */
function copyBlock(blocks: ZFileBlocks, block: number, stored: Uint8Array, output: Uint8Array, outputOffset: number): void {
  const blockStart = block * blocks.blockSize;
  const blockBytes = blockLength(blocks, block);
  const at = blockStart - outputOffset;
  if (at >= 0 && at + blockBytes <= output.length) {
    decodeBlock(blocks, block, stored, output.subarray(at, at + blockBytes));
    return;
  }
  const whole = Buffer.allocUnsafe(blockBytes);
  decodeBlock(blocks, block, stored, whole);
  const from = Math.max(0, -at);
  const to = Math.min(blockBytes, output.length - at);
  output.set(whole.subarray(from, to), at + from);
}

/** Bytes of the original in a block. */
export function blockLength(blocks: ZFileBlocks, block: number): number {
  return Math.min(blocks.blockSize, blocks.originalBytes - block * blocks.blockSize);
}

/**
 * Checks the stored bytes of a block (its CRC included) and decompresses them to fill `output` exactly.
 * Throws `CORRUPT` naming the file, the block and its offset.
 */
export function decodeBlock(blocks: ZFileBlocks, block: number, stored: Uint8Array, output: Uint8Array): void {
  const codeBytes = stored.length - (blocks.verify ? BLOCK_CRC_BYTES : 0);
  if (blocks.verify) {
    const found = crc32cRaw(BLOCK_CRC_SEED, stored, 0, codeBytes);
    const expected = new DataView(stored.buffer, stored.byteOffset + codeBytes, BLOCK_CRC_BYTES).getUint32(0, true);
    if (found !== expected) throw corrupt(`${whereIs(blocks, block)}: crc is ${hex(found)}, stored crc is ${hex(expected)}`);
  }
  try {
    decompressBlock(blocks.algorithm, stored.subarray(0, codeBytes), output);
  } catch (cause) {
    if (!(cause instanceof LazyError)) throw cause;
    throw corrupt(`${whereIs(blocks, block)}: ${messageOf(cause)}`, { cause });
  }
}

function whereIs(blocks: ZFileBlocks, block: number): string {
  return `${blocks.name}: zfile block ${block} at ${blocks.offsets[block]}`;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
