import { corrupt } from "../errors.ts";
import { KernelModule, type KernelNumber } from "./kernel-module.ts";
import { LZ4_WASM } from "./kernels/lz4-wasm.ts";

/** What `assembly/lz4.ts` exports. */
interface Lz4Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly PLAIN: KernelNumber;
  readonly PLAIN_BYTES: KernelNumber;
  readonly STORED: KernelNumber;
  readonly STORED_BYTES: KernelNumber;
  readonly SIZES: KernelNumber;
  readonly MAX_BLOCKS: KernelNumber;
  readonly failureReason: KernelNumber;
  readonly failureAt: KernelNumber;
  readonly failureFound: KernelNumber;
  readonly failureExpected: KernelNumber;
  readonly compressBlocks: (
    plain: number,
    plainBytes: number,
    blockBytes: number,
    crcSeed: number,
    stored: number,
    sizes: number,
  ) => number;
  readonly decodeBlocks: (
    stored: number,
    sizes: number,
    count: number,
    verify: boolean,
    crcSeed: number,
    plain: number,
    blockBytes: number,
    lastBytes: number,
  ) => number;
}

/** The largest block: positions in it fit 16 bits. */
export const LZ4_MAX_BLOCK_BYTES = 65536;

/** Each stored block is followed by a CRC-32C of its compressed bytes, started at this value (see docs/formats/zfile.md). */
export const BLOCK_CRC_SEED = 100007;
export const BLOCK_CRC_BYTES = 4;

/** The most that a block of `inputBytes` can compress to. */
export function lz4Bound(inputBytes: number): number {
  return inputBytes + Math.floor(inputBytes / 255) + 16;
}

const MODULE = new KernelModule(LZ4_WASM);
let ofThread: Lz4Kernel | undefined;

/**
 * An instance of the LZ4 kernel, which has 2.2 MiB of memory: a batch of blocks at `plain`, and the same as stored, each
 * followed by its CRC, at `stored`. Both are views that stay; what is in them changes with every call.
 */
export class Lz4Kernel {
  readonly plain: Uint8Array<ArrayBuffer>;
  readonly stored: Uint8Array<ArrayBuffer>;
  /** Stored size of each block. */
  readonly sizes: Uint32Array<ArrayBuffer>;
  readonly #exports: Lz4Exports;

  constructor() {
    const kernel = MODULE.instantiate() as Lz4Exports;
    const buffer = kernel.memory.buffer;
    this.plain = new Uint8Array(buffer, kernel.PLAIN.value, kernel.PLAIN_BYTES.value);
    this.stored = new Uint8Array(buffer, kernel.STORED.value, kernel.STORED_BYTES.value);
    this.sizes = new Uint32Array(buffer, kernel.SIZES.value, kernel.MAX_BLOCKS.value);
    this.#exports = kernel;
  }

  /** One for whoever is done with it before anything else runs on the thread. */
  static ofThread(): Lz4Kernel {
    ofThread ??= new Lz4Kernel();
    return ofThread;
  }

  /** How many blocks one call can take. */
  batchBlocks(blockBytes: number): number {
    if (!Number.isInteger(blockBytes) || blockBytes < 1 || blockBytes > LZ4_MAX_BLOCK_BYTES) {
      throw new RangeError(`an LZ4 block holds 1 byte to at most ${LZ4_MAX_BLOCK_BYTES} bytes, got ${blockBytes}`);
    }
    const byRoom = Math.min(this.plain.length / blockBytes, this.stored.length / (lz4Bound(blockBytes) + BLOCK_CRC_BYTES));
    return Math.min(Math.floor(byRoom), this.sizes.length);
  }

  /** Compresses the first `plainBytes` of `plain`, at most `batchBlocks` blocks. Returns how many bytes of `stored` that takes. */
  compress(plainBytes: number, blockBytes: number): number {
    const blocks = Math.ceil(plainBytes / blockBytes);
    if (!Number.isInteger(plainBytes) || plainBytes < 0 || plainBytes > this.plain.length || blocks > this.batchBlocks(blockBytes)) {
      throw new RangeError(`no room to compress ${plainBytes} bytes in blocks of ${blockBytes}`);
    }
    const kernel = this.#exports;
    const stored = kernel.STORED.value;
    return kernel.compressBlocks(kernel.PLAIN.value, plainBytes, blockBytes, BLOCK_CRC_SEED, stored, kernel.SIZES.value) - stored;
  }

  /**
   * Decodes the first `blocks` blocks of `stored`, whose sizes are in `sizes`, to `plain`: `blockBytes` from each, `lastBytes`
   * from the last; with `verify` each ends with its CRC. Returns the number of good ones: fewer when the next is bad, in a way
   * that `failure` tells.
   */
  decode(blocks: number, verify: boolean, blockBytes: number, lastBytes: number): number {
    if (blocks < 1 || blocks > this.sizes.length || blockBytes < 0 || lastBytes < 0 || lastBytes > blockBytes) {
      throw new RangeError(`no room to decode ${blocks} blocks of ${blockBytes} bytes, ${lastBytes} in the last`);
    }
    const overhead = verify ? BLOCK_CRC_BYTES : 0;
    let storedBytes = 0;
    for (let block = 0; block < blocks; block++) {
      const size = this.sizes[block];
      if (size < overhead) throw new RangeError(`block ${block} is stored in ${size} bytes, expected ${overhead} at least`);
      storedBytes += size;
    }
    if (storedBytes > this.stored.length || (blocks - 1) * blockBytes + lastBytes > this.plain.length) {
      throw new RangeError(`no room to decode ${blocks} blocks of ${blockBytes} bytes, stored in ${storedBytes}`);
    }
    const kernel = this.#exports;
    const { STORED, SIZES, PLAIN } = kernel;
    return kernel.decodeBlocks(STORED.value, SIZES.value, blocks, verify, BLOCK_CRC_SEED, PLAIN.value, blockBytes, lastBytes);
  }

  /** What is bad about the block that `decode` stopped at. */
  failure(): string {
    const { failureReason, failureAt, failureFound, failureExpected } = this.#exports;
    const [found, expected] = [failureFound.value >>> 0, failureExpected.value >>> 0];
    const reason = failureReason.value;
    if (reason === CRC_DIFFERS) return `crc is ${hex(found)}, stored crc is ${hex(expected)}`;
    return `LZ4 block: at byte ${failureAt.value}: ${MALFORMED[reason](found, expected)}`;
  }
}

const CRC_DIFFERS = 1;

/** By the kernel's numbers. */
const MALFORMED: Readonly<Record<number, (found: number, expected: number) => string>> = {
  2: () => "a literal length is cut off",
  3: (literals, left) => `${literals} literals, only ${left} bytes left`,
  4: (literals, room) => `${literals} literals, room for ${room}`,
  5: (bytes, expected) => `ends after ${bytes} bytes, expected ${expected}`,
  6: () => "a match distance is cut off",
  7: (distance, bytes) => `match distance ${distance} after ${bytes} bytes`,
  8: () => "a match length is cut off",
  9: (length, room) => `match of ${length} bytes, room for ${room}`,
  10: () => "does not end with literals",
};

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/**
 * Compresses `input[start, end)` (at most 64 KiB) to `output` at `at`; returns the offset behind the result.
 * `output` needs `lz4Bound(end - start)` bytes from `at`.
 */
export function lz4Compress(input: DataView, start: number, end: number, output: DataView, at: number): number {
  const inputBytes = end - start;
  if (start < 0 || inputBytes < 0 || end > input.byteLength || at < 0 || at + lz4Bound(inputBytes) > output.byteLength) {
    throw new RangeError(`no room to compress [${start}, ${end}) of ${input.byteLength} bytes to ${at} of ${output.byteLength}`);
  }
  const kernel = Lz4Kernel.ofThread();
  if (inputBytes === 0) {
    output.setUint8(at, 0); // a batch of no bytes has no block
    return at + 1;
  }
  kernel.batchBlocks(inputBytes);
  kernel.plain.set(bytesOf(input, start, end));
  const codeBytes = kernel.compress(inputBytes, inputBytes) - BLOCK_CRC_BYTES;
  bytesOf(output, at, at + codeBytes).set(kernel.stored.subarray(0, codeBytes));
  return at + codeBytes;
}

/**
 * Decompresses the block `input[start, end)` to exactly `output[at, limit)`, at most 64 KiB.
 * Throws `CORRUPT` when the block is malformed or does not hold exactly that many bytes; never writes outside.
 */
export function lz4Decompress(input: DataView, start: number, end: number, output: DataView, at: number, limit: number): void {
  const kernel = Lz4Kernel.ofThread();
  if (start < 0 || end > input.byteLength || at < 0 || limit > output.byteLength || start > end || at > limit) {
    throw new RangeError(
      `no room to decompress [${start}, ${end}) of ${input.byteLength} bytes to [${at}, ${limit}) of ${output.byteLength}`,
    );
  }
  const bytes = limit - at;
  if (end - start > kernel.stored.length) {
    throw corrupt(`LZ4 block of ${end - start} bytes, expected at most ${lz4Bound(bytes)} for ${bytes}`);
  }
  kernel.stored.set(bytesOf(input, start, end));
  kernel.sizes[0] = end - start;
  if (kernel.decode(1, false, bytes, bytes) === 0) throw corrupt(kernel.failure());
  bytesOf(output, at, limit).set(kernel.plain.subarray(0, bytes));
}

function bytesOf(view: DataView, start: number, end: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + start, end - start);
}
