import { BLOCK_BYTES } from "./layout.ts";

/** A run of a file's blocks that lie one after the other on the device. */
export interface DeviceRun {
  readonly fileBlock: number;
  readonly blocks: number;
  readonly block: number;
}

/** A block map of 64 MiB. */
export const MAX_CHUNKS = 2 ** 24;
/** Chunks of 1 GiB: more would save nothing. */
const MAX_CHUNK_BITS = 18;

/** Runs as they are compared and kept: within the file's size, neighbours joined. */
export function joinRuns(runs: Iterable<DeviceRun>, size: number): DeviceRun[] {
  const endBlock = Math.ceil(size / BLOCK_BYTES);
  const joined: DeviceRun[] = [];
  for (const { fileBlock, blocks, block } of runs) {
    const kept = Math.min(blocks, endBlock - fileBlock);
    if (kept <= 0) continue;
    const last = joined.at(-1);
    if (last && last.fileBlock + last.blocks === fileBlock && last.block + last.blocks === block) {
      joined[joined.length - 1] = { ...last, blocks: last.blocks + kept };
    } else {
      joined.push({ fileBlock, blocks: kept, block });
    }
  }
  return joined;
}

/** The block that a file begins at whose runs are one piece without holes; undefined for others. Empty files have block 0. */
export function plainBlock(runs: readonly DeviceRun[], size: number): number | undefined {
  if (size === 0) return 0;
  const [run, ...others] = runs;
  const isWhole = run !== undefined && others.length === 0 && run.fileBlock === 0 && run.blocks * BLOCK_BYTES >= size;
  return isWhole ? run.block : undefined;
}

/** How a file with holes is divided: blocks of a chunk as a power of two, and the number of chunks. */
export interface ChunkShape {
  readonly bits: number;
  readonly count: number;
}

/** The largest chunks of which each is a hole or one piece on the device. */
export function shapeChunks(runs: readonly DeviceRun[], size: number): ChunkShape {
  const endBlock = Math.ceil(size / BLOCK_BYTES);
  let bits = MAX_CHUNK_BITS;
  for (const { fileBlock, blocks } of runs) {
    const end = fileBlock + blocks;
    bits = Math.min(bits, alignmentBits(fileBlock), end === endBlock ? bits : alignmentBits(end));
  }
  return { bits, count: Math.ceil(endBlock / 2 ** bits) };
}

function alignmentBits(block: number): number {
  let bits = 0;
  while (bits < MAX_CHUNK_BITS && block % 2 ** (bits + 1) === 0) bits++;
  return bits;
}

/** Writes the address of each chunk. */
export function encodeChunks(runs: readonly DeviceRun[], { bits, count }: ChunkShape, target: Buffer, offset: number): void {
  target.fill(0xff, offset, offset + count * 4); // each a `NO_BLOCK`
  const chunkBlocks = 2 ** bits;
  for (const { fileBlock, blocks, block } of runs) {
    for (let done = 0; done < blocks; done += chunkBlocks) {
      target.writeUInt32LE(block + done, offset + ((fileBlock + done) / chunkBlocks) * 4);
    }
  }
}
