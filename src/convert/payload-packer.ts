import type { TarEntry } from "../tar/tar-entry.ts";
import type { FileRun } from "../tree/filesystem-writer.ts";

/** Payload blocks are filesystem blocks. */
export const PAYLOAD_BLOCK_BYTES = 4096;
/** Payload comes in pieces of this size. */
export const PAYLOAD_PIECE_BYTES = 1 << 20;
const NO_RUNS: readonly FileRun[] = [];

/**
 * Cuts files into whole blocks, one file after the other: data starts on a block's boundary and is padded with zeros, holes
 * are left out. It is fed synchronously by the archive's reader; full buffers wait in `take` for whoever writes them on.
 */
export class PayloadPacker {
  readonly #allocate: (() => ArrayBuffer) | undefined;
  #buffer: Buffer<ArrayBuffer> | undefined;
  #filled = 0;
  #full: Buffer<ArrayBuffer>[] = [];
  /** Position in the payload, in bytes. */
  #position = 0;
  #firstByte = 0;
  #runs: readonly FileRun[] = NO_RUNS;
  #extents: TarEntry["extents"] = [];
  #extent = 0;
  #extentDone = 0;
  #run = 0;
  #runFirstByte = 0;

  /** @param allocate gives buffers of PAYLOAD_PIECE_BYTES or more; without it, payload is only measured */
  constructor(allocate: (() => ArrayBuffer) | undefined) {
    this.#allocate = allocate;
  }

  /** Blocks of payload so far. */
  get blocks(): number {
    return this.#position / PAYLOAD_BLOCK_BYTES;
  }

  /** A sparse file can turn few bytes into many blocks. */
  get sparse(): boolean {
    return this.#extents.length > 1;
  }

  /** Starts a file: where its blocks will be. */
  beginFile(entry: TarEntry): { payloadBlock: number; runs: readonly FileRun[] } {
    this.#extents = entry.extents;
    this.#runs = blockRuns(entry.extents);
    this.#firstByte = this.#position;
    this.#extent = 0;
    this.#extentDone = 0;
    this.#run = 0;
    this.#runFirstByte = this.#position;
    return { payloadBlock: this.blocks, runs: this.#runs };
  }

  /** Takes the file's stored data: its extents one after the other. */
  data(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const extent = this.#extents[this.#extent];
      if (this.#extentDone === 0) this.#zeroTo(this.#payloadByte(extent.offset));
      const taken = Math.min(bytes.length - at, extent.length - this.#extentDone);
      this.#append(bytes, at, at + taken);
      at += taken;
      this.#extentDone += taken;
      if (this.#extentDone < extent.length) continue;
      this.#extent++;
      this.#extentDone = 0;
    }
  }

  /** Pads the file's last block. */
  endFile(): void {
    const blocks = this.#runs.reduce((sum, run) => sum + run.blocks, 0);
    this.#zeroTo(this.#firstByte + blocks * PAYLOAD_BLOCK_BYTES);
    this.#extents = [];
  }

  /** Full buffers, whole blocks each; with `all`, the last one too. They belong to the caller. */
  take(all: boolean): Buffer<ArrayBuffer>[] {
    if (all && this.#filled > 0) this.#flush();
    const full = this.#full;
    this.#full = [];
    return full;
  }

  /** Where in the payload a byte of the file goes. Called with ascending offsets. */
  #payloadByte(offset: number): number {
    let run = this.#runs[this.#run];
    while (offset >= (run.fileBlock + run.blocks) * PAYLOAD_BLOCK_BYTES) {
      this.#runFirstByte += run.blocks * PAYLOAD_BLOCK_BYTES;
      run = this.#runs[++this.#run]!;
    }
    return this.#runFirstByte + offset - run.fileBlock * PAYLOAD_BLOCK_BYTES;
  }

  #zeroTo(position: number): void {
    if (!this.#allocate) this.#position = Math.max(this.#position, position);
    while (this.#position < position) {
      const length = Math.min(position - this.#position, PAYLOAD_PIECE_BYTES - this.#filled);
      this.#piece().fill(0, this.#filled, this.#filled + length);
      this.#advance(length);
    }
  }

  #append(bytes: Uint8Array, from: number, to: number): void {
    if (!this.#allocate) {
      this.#position += to - from;
      return;
    }
    for (let at = from; at < to;) {
      const length = Math.min(to - at, PAYLOAD_PIECE_BYTES - this.#filled);
      this.#piece().set(bytes.subarray(at, at + length), this.#filled);
      this.#advance(length);
      at += length;
    }
  }

  #piece(): Buffer<ArrayBuffer> {
    return (this.#buffer ??= Buffer.from(this.#allocate?.() ?? new ArrayBuffer(PAYLOAD_PIECE_BYTES), 0, PAYLOAD_PIECE_BYTES));
  }

  #advance(length: number): void {
    this.#filled += length;
    this.#position += length;
    if (this.#filled === PAYLOAD_PIECE_BYTES) this.#flush();
  }

  #flush(): void {
    this.#full.push(this.#piece().subarray(0, this.#filled));
    this.#buffer = undefined;
    this.#filled = 0;
  }
}

/** The blocks that extents touch, as runs; extents that meet in a block share it. */
function blockRuns(extents: TarEntry["extents"]): readonly FileRun[] {
  if (extents.length === 0) return NO_RUNS;
  const runs: { fileBlock: number; blocks: number }[] = [];
  for (const { offset, length } of extents) {
    const first = Math.floor(offset / PAYLOAD_BLOCK_BYTES);
    const end = Math.ceil((offset + length) / PAYLOAD_BLOCK_BYTES);
    const last = runs.at(-1);
    if (last && first <= last.fileBlock + last.blocks) last.blocks = Math.max(last.blocks, end - last.fileBlock);
    else runs.push({ fileBlock: first, blocks: end - first });
  }
  return runs;
}
