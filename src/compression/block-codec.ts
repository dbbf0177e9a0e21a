import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { crc32cRaw } from "../bytes/crc32c.ts";
import { corrupt, messageOf } from "../errors.ts";
import { lz4Compress, lz4Decompress } from "./lz4.ts";

/** How the blocks of a block-compressed file are encoded. */
export type BlockAlgorithm = "lz4" | "zstd";

/** Blocks as they are stored: each followed by its CRC (four bytes, little-endian), back to back. */
export interface CompressedBatch {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Stored size of each block, its CRC included. */
  readonly storedBytes: Uint32Array<ArrayBuffer>;
}

/**
 * Cuts `input` into blocks of `blockSize` bytes (the last may be shorter) and compresses each on its own.
 * `input` must stay unchanged until the promise settles; the result belongs to the caller.
 */
export type CompressBlocks = (algorithm: BlockAlgorithm, input: Uint8Array, blockSize: number) => Promise<CompressedBatch>;

/** Each stored block is followed by a CRC-32C of its compressed bytes, started at this value (see docs/formats/zfile.md). */
export const BLOCK_CRC_SEED = 100007;
export const BLOCK_CRC_BYTES = 4;

/** The level that ZFile writers use for zstd blocks. */
const ZSTD_LEVEL = 3;

/** The most that a block of `inputBytes` is stored in, its CRC included, with either algorithm. */
export function storedBound(inputBytes: number): number {
  return inputBytes + 512 + BLOCK_CRC_BYTES;
}

/** The synchronous form of `CompressBlocks`. */
export function compressBlocks(algorithm: BlockAlgorithm, input: Uint8Array, blockSize: number): CompressedBatch {
  const blocks = Math.ceil(input.length / blockSize);
  const storedBytes = new Uint32Array(blocks);
  const bytes = new Uint8Array(new ArrayBuffer(blocks * storedBound(Math.min(blockSize, input.length))));
  const view = viewOf(bytes);
  const inputView = viewOf(input);
  let at = 0;
  for (let block = 0; block < blocks; block++) {
    const start = block * blockSize;
    const end = Math.min(start + blockSize, input.length);
    const codeEnd = algorithm === "lz4" ? lz4Compress(inputView, start, end, view, at) : putZstd(input.subarray(start, end), bytes, at);
    view.setUint32(codeEnd, crc32cRaw(BLOCK_CRC_SEED, bytes, at, codeEnd), true);
    storedBytes[block] = codeEnd + BLOCK_CRC_BYTES - at;
    at = codeEnd + BLOCK_CRC_BYTES;
  }
  return { bytes: bytes.subarray(0, at), storedBytes };
}

/** `compressBlocks` on the calling thread behind the asynchronous seam. */
export const compressInline: CompressBlocks = async (algorithm, input, blockSize) => compressBlocks(algorithm, input, blockSize);

/** Decompresses one block (without CRC) to exactly fill `output`. Throws `CORRUPT` where it does not. */
export function decompressBlock(algorithm: BlockAlgorithm, code: Uint8Array, output: Uint8Array): void {
  if (algorithm === "lz4") lz4Decompress(viewOf(code), 0, code.length, viewOf(output), 0, output.length);
  else decompressZstd(code, output);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function putZstd(input: Uint8Array, output: Uint8Array, at: number): number {
  const code = zstdCompressSync(input, { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } });
  output.set(code, at);
  return at + code.length;
}

function decompressZstd(code: Uint8Array, output: Uint8Array): void {
  let plain: Uint8Array;
  try {
    plain = zstdDecompressSync(code, { maxOutputLength: Math.max(output.length, 1) });
  } catch (cause) {
    throw corrupt(`zstd block of ${code.length} bytes: ${messageOf(cause)}`, { cause });
  }
  if (plain.length !== output.length) throw corrupt(`zstd block ends after ${plain.length} bytes, expected ${output.length}`);
  output.set(plain);
}
