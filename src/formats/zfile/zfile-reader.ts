import { crc32cRaw } from "../../bytes/crc32c.ts";
import { checkRange, type ByteSource } from "../../bytes/source.ts";
import { decodeBlocks, storedBound, type BlockAlgorithm } from "../../compression/block-codec.ts";
import { BLOCK_CRC_BYTES, BLOCK_CRC_SEED } from "../../compression/lz4.ts";
import { corrupt } from "../../errors.ts";
import { ALGORITHM_CODES, ZFILE_MAGIC, type ZFileRecord } from "./layout.ts";
import { readZFileRecords } from "./zfile-records.ts";

/** The most that one read of the source asks for. */
const MAX_READ_BYTES = 4 << 20;

/**
 * Where the blocks of a ZFile lie. Plain data over shared memory, so that a worker can be given it and decode on its own
 * with `decodeBlock`.
 * Filled by a constructor, as it lives as long as its file and must not change: of objects that one literal had made, V8 was seen to give
 * two files' the same boxed number for `originalBytes` (Node 24.21; once in ten minutes of soak, once in some two hundred runs of a reader).
 */
export class ZFileBlocks {
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

  constructor(name: string, { algorithm, blockSize, originalBytes, verify }: ZFileRecord, offsets: Float64Array) {
    this.name = name;
    this.algorithm = algorithm === ALGORITHM_CODES.lz4 ? "lz4" : "zstd";
    this.blockSize = blockSize;
    this.originalBytes = originalBytes;
    this.verify = verify !== 0;
    this.offsets = offsets;
  }
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
  return new ZFileReader(source, new ZFileBlocks(source.name, record, offsets));
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
      const runStart = block * blockSize;
      const to = Math.min(stop * blockSize - offset, length);
      decodeRun(this.blocks, block, stop, stored, Math.max(0, offset - runStart), output.subarray(Math.max(0, runStart - offset), to));
      block = stop;
    }
    return output;
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}

/**
 * Whether those blocks are what their CRCs say whose stored bytes lie wholly in `bytes`, which begin at `offset` of the ZFile. True for
 * what holds no whole block, and where blocks have no CRCs.
 */
export function areBlocksRight({ verify, offsets }: ZFileBlocks, offset: number, bytes: Uint8Array): boolean {
  if (!verify) return true;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = firstFrom(offsets, offset); block + 1 < offsets.length; block++) {
    const [start, end] = [offsets[block] - offset, offsets[block + 1] - offset];
    if (end > bytes.length) break;
    const data = end - BLOCK_CRC_BYTES;
    if (crc32cRaw(BLOCK_CRC_SEED, bytes, start, data) !== view.getUint32(data, true)) return false;
  }
  return true;
}

/** The first element that is not below `value`; elements ascend. */
function firstFrom(ascending: Float64Array, value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle] >= value) high = middle;
    else low = middle + 1;
  }
  return low;
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
  decodeRun(blocks, block, block + 1, stored, 0, output);
}

/**
 * Checks and decompresses the blocks `[first, stop)`, whose stored bytes (CRCs included) are given, and fills `output` with
 * the original's bytes that begin `skip` bytes after the start of the first block. Throws as `decodeBlock` does.
 */
export function decodeRun(blocks: ZFileBlocks, first: number, stop: number, stored: Uint8Array, skip: number, output: Uint8Array): void {
  const { algorithm, blockSize, verify } = blocks;
  const offsets = blocks.offsets.subarray(first, stop + 1);
  const lastBytes = blockLength(blocks, stop - 1);
  const whereIs = (block: number): string => `${blocks.name}: zfile block ${first + block} at ${offsets[block]}`;
  decodeBlocks({ algorithm, blockSize, lastBytes, verify, bytes: stored, offsets, whereIs }, skip, output);
}
