import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { crc32cRaw } from "../bytes/crc32c.ts";
import { corrupt, messageOf } from "../errors.ts";
import { BLOCK_CRC_BYTES, BLOCK_CRC_SEED, lz4Bound, Lz4Kernel } from "./lz4.ts";

/** How the blocks of a block-compressed file are encoded. */
export type BlockAlgorithm = "lz4" | "zstd";

/** Blocks as they are stored: each followed by its CRC (four bytes, little-endian), back to back. Both have buffers of their own. */
export interface CompressedBatch {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Stored size of each block, its CRC included. */
  readonly storedBytes: Uint32Array<ArrayBuffer>;
}

/**
 * Cuts `input` into blocks of `blockSize` bytes (the last may be shorter) and compresses each on its own.
 * `input` must stay unchanged until the promise settles; the result belongs to the caller. What comes out may go into `spare`, the buffer
 * of an earlier result, which is used up.
 */
export type CompressBlocks = (
  algorithm: BlockAlgorithm,
  input: Uint8Array,
  blockSize: number,
  spare?: ArrayBuffer,
) => Promise<CompressedBatch>;

/** The level that ZFile writers use for zstd blocks. */
const ZSTD_LEVEL = 3;

/** Plain bytes that are compressed or decoded at a time: what goes in and comes out stays in a core's cache. */
const COMPRESS_BYTES = 128 << 10;
const DECODE_BYTES = 128 << 10;

/** The most that a block of `inputBytes` is stored in, its CRC included, with either algorithm. */
export function storedBound(inputBytes: number): number {
  return inputBytes + 512 + BLOCK_CRC_BYTES;
}

/** The synchronous form of `CompressBlocks`. What comes out goes into `buffer`, if there is one and it has room. */
export function compressBlocks(algorithm: BlockAlgorithm, input: Uint8Array, blockSize: number, buffer?: ArrayBuffer): CompressedBatch {
  if (algorithm === "zstd") return compressZstd(input, blockSize);
  const kernel = Lz4Kernel.ofThread();
  const pieceBlocks = Math.min(kernel.batchBlocks(blockSize), Math.max(1, Math.floor(COMPRESS_BYTES / blockSize)));
  const storedBytes = new Uint32Array(Math.ceil(input.length / blockSize));
  const bound = storedBytes.length * (lz4Bound(blockSize) + BLOCK_CRC_BYTES);
  const hasRoom = buffer !== undefined && buffer.byteLength >= bound;
  const bytes = new Uint8Array(hasRoom ? buffer : new ArrayBuffer(bound));
  let end = 0;
  for (let block = 0; block < storedBytes.length; block += pieceBlocks) {
    const piece = input.subarray(block * blockSize, (block + pieceBlocks) * blockSize);
    kernel.plain.set(piece);
    const pieceEnd = kernel.compress(piece.length, blockSize);
    bytes.set(kernel.stored.subarray(0, pieceEnd), end);
    storedBytes.set(kernel.sizes.subarray(0, Math.ceil(piece.length / blockSize)), block);
    end += pieceEnd;
  }
  return { bytes: hasRoom ? bytes.subarray(0, end) : bytes.slice(0, end), storedBytes };
}

/** `compressBlocks` on the calling thread behind the asynchronous seam. */
export const compressInline: CompressBlocks = async (algorithm, input, blockSize, spare) =>
  compressBlocks(algorithm, input, blockSize, spare);

/** A run of stored blocks, back to back. */
export interface StoredBlocks {
  readonly algorithm: BlockAlgorithm;
  /** Bytes that each block but the last holds. */
  readonly blockSize: number;
  /** Bytes that the last one holds. */
  readonly lastBytes: number;
  /** Each block is followed by its CRC, which is part of its stored size. */
  readonly verify: boolean;
  readonly bytes: Uint8Array;
  /** Offset of each block and of the end of the last, counted from anywhere. */
  readonly offsets: Float64Array;
  /** Names a block, by its number in the run, for messages. */
  readonly whereIs: (block: number) => string;
}

/**
 * Checks and decodes a run of blocks, and fills `output` with their bytes from `skip` on.
 * Throws `CORRUPT` for a block whose CRC differs, that is malformed, or that holds more or less than it should.
 */
export function decodeBlocks(run: StoredBlocks, skip: number, output: Uint8Array): void {
  const { bytes, offsets, blockSize, whereIs } = run;
  const blocks = offsets.length - 1;
  if (offsets[blocks] - offsets[0] !== bytes.length) throw new RangeError(`${blocks} blocks do not lie in ${bytes.length} bytes`);
  const [least, most] = [run.verify ? BLOCK_CRC_BYTES + 1 : 1, storedBound(blockSize)];
  for (let block = 0; block < blocks; block++) {
    const stored = offsets[block + 1] - offsets[block];
    if (!(stored >= least && stored <= most)) {
      throw corrupt(`${whereIs(block)}: stored in ${stored} bytes, expected ${least} to ${most}`);
    }
  }
  if (run.algorithm === "lz4") decodeLz4(run, skip, output);
  else decodeZstd(run, skip, output);
}

function decodeLz4(run: StoredBlocks, skip: number, output: Uint8Array): void {
  const { bytes, offsets, blockSize, lastBytes, verify, whereIs } = run;
  const kernel = Lz4Kernel.ofThread();
  const blocks = offsets.length - 1;
  const atOnce = Math.floor(DECODE_BYTES / storedBound(blockSize));
  for (let first = 0; first < blocks; first += atOnce) {
    const stop = Math.min(first + atOnce, blocks);
    kernel.stored.set(bytes.subarray(offsets[first] - offsets[0], offsets[stop] - offsets[0]));
    for (let block = first; block < stop; block++) kernel.sizes[block - first] = offsets[block + 1] - offsets[block];
    const endBytes = stop === blocks ? lastBytes : blockSize;
    const good = kernel.decode(stop - first, verify, blockSize, endBytes);
    if (first + good < stop) throw corrupt(`${whereIs(first + good)}: ${kernel.failure()}`);
    putPart(kernel.plain.subarray(0, (stop - first - 1) * blockSize + endBytes), first * blockSize, skip, output);
  }
}

function decodeZstd(run: StoredBlocks, skip: number, output: Uint8Array): void {
  const { bytes, offsets, blockSize, whereIs } = run;
  const blocks = offsets.length - 1;
  for (let block = 0; block < blocks; block++) {
    const start = offsets[block] - offsets[0];
    const end = offsets[block + 1] - offsets[0];
    const codeEnd = run.verify ? end - BLOCK_CRC_BYTES : end;
    if (run.verify) {
      const found = crc32cRaw(BLOCK_CRC_SEED, bytes, start, codeEnd);
      const expected = new DataView(bytes.buffer, bytes.byteOffset).getUint32(codeEnd, true);
      if (found !== expected) throw corrupt(`${whereIs(block)}: crc is ${hex(found)}, stored crc is ${hex(expected)}`);
    }
    const plainBytes = block + 1 === blocks ? run.lastBytes : blockSize;
    putPart(decompressZstd(bytes.subarray(start, codeEnd), plainBytes, whereIs(block)), block * blockSize, skip, output);
  }
}

/** Copies what lies in both: `plain`, which begins at `at`, and `output`, which begins at `outputAt`. */
function putPart(plain: Uint8Array, at: number, outputAt: number, output: Uint8Array): void {
  const from = Math.max(0, outputAt - at);
  const to = Math.min(plain.length, outputAt + output.length - at);
  if (from < to) output.set(plain.subarray(from, to), at + from - outputAt);
}

function compressZstd(input: Uint8Array, blockSize: number): CompressedBatch {
  const blocks = Math.ceil(input.length / blockSize);
  const storedBytes = new Uint32Array(blocks);
  const bytes = new Uint8Array(blocks * storedBound(Math.min(blockSize, input.length)));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (let block = 0; block < blocks; block++) {
    const plain = input.subarray(block * blockSize, (block + 1) * blockSize);
    const code = zstdCompressSync(plain, { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } });
    bytes.set(code, at);
    view.setUint32(at + code.length, crc32cRaw(BLOCK_CRC_SEED, code), true);
    storedBytes[block] = code.length + BLOCK_CRC_BYTES;
    at += code.length + BLOCK_CRC_BYTES;
  }
  return { bytes: bytes.slice(0, at), storedBytes };
}

function decompressZstd(code: Uint8Array, plainBytes: number, where: string): Uint8Array {
  let plain: Uint8Array;
  try {
    plain = zstdDecompressSync(code, { maxOutputLength: Math.max(plainBytes, 1) });
  } catch (cause) {
    throw corrupt(`${where}: zstd block of ${code.length} bytes: ${messageOf(cause)}`, { cause });
  }
  if (plain.length !== plainBytes) throw corrupt(`${where}: zstd block ends after ${plain.length} bytes, expected ${plainBytes}`);
  return plain;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
