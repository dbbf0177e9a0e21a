import { crc32cRaw } from "../../bytes/crc32c.ts";
import { unsupported } from "../../errors.ts";
import type { Group } from "./group-descriptor.ts";
import { COMPAT, GROUP_FLAG, RO_COMPAT } from "./layout.ts";
import type { MetadataBlocks } from "./metadata-blocks.ts";
import type { Superblock } from "./superblock.ts";

/** A run of blocks on the device. */
export interface BlockRun {
  readonly block: number;
  readonly blocks: number;
}

/** Blocks that are known to be free and are handed out front to back; so nothing has to be searched, and bits are set in one go. */
interface FreeStretch {
  /** First block that was handed out since bits were last set. */
  marked: number;
  next: number;
  readonly end: number;
}

/**
 * Hands out blocks front to back and takes them back at the end of a layer, so that no block has two owners within one.
 * Everything it decides follows from the bitmaps alone.
 */
export class BlockAllocator {
  readonly #superblock: Superblock;
  readonly #groups: Group[];
  readonly #blocks: MetadataBlocks;
  readonly #changed = new Set<number>();
  readonly #freed: BlockRun[] = [];
  readonly #stretches: FreeStretch[] = [];
  #freeBlocks: number;
  /** All groups from this one on are free. A large device is mostly that, and nothing should take time for it. */
  #freeTail: number;

  constructor(superblock: Superblock, groups: Group[], blocks: MetadataBlocks) {
    this.#superblock = superblock;
    this.#groups = groups;
    this.#blocks = blocks;
    this.#freeBlocks = groups.reduce((sum, group) => sum + group.freeBlocks, 0);
    this.#freeTail = groups.length;
    this.#growTail();
  }

  #growTail(): void {
    while (this.#freeTail > 0 && this.#groups[this.#freeTail - 1].freeBlocks === this.#groupBlocks(this.#freeTail - 1)) this.#freeTail--;
  }

  /** Starts a layer at the front of a free run: its first `ahead` blocks and the others are asked for independently, each in order. */
  beginLayer(run: BlockRun, ahead: number): void {
    this.#dropStretches();
    const end = run.block + run.blocks;
    const middle = Math.min(end, run.block + ahead);
    this.#stretches.push({ marked: run.block, next: run.block, end: middle }, { marked: middle, next: middle, end });
  }

  /** The first block of the longest free run; of several, the first. */
  longestFreeRun(): BlockRun {
    this.#dropStretches();
    let best: BlockRun = { block: 0, blocks: 0 };
    for (let at = 0; ;) {
      const run = this.#freeRun(at, Infinity);
      if (!run) return best;
      if (run.blocks > best.blocks) best = run;
      at = run.block + run.blocks;
    }
  }

  /** Allocates `count` blocks at `goal` or as soon after it as possible, wrapping around; in as few runs as that gives. */
  allocate(count: number, goal: number): BlockRun[] {
    return this.#allocateInStretch(count, goal) ? [{ block: goal, blocks: count }] : this.#search(count, goal);
  }

  #allocateInStretch(count: number, goal: number): boolean {
    if (count === 0) return false;
    for (const stretch of this.#stretches) {
      if (goal < stretch.next || goal + count > stretch.end) continue;
      if (goal > stretch.next) {
        this.#markStretch(stretch);
        stretch.marked = goal;
      }
      stretch.next = goal + count;
      return true;
    }
    return false;
  }

  #markStretch(stretch: FreeStretch): void {
    if (stretch.next > stretch.marked) this.#mark({ block: stretch.marked, blocks: stretch.next - stretch.marked }, true);
    stretch.marked = stretch.next;
  }

  #dropStretches(): void {
    for (const stretch of this.#stretches) this.#markStretch(stretch);
    this.#stretches.length = 0;
  }

  #search(count: number, goal: number): BlockRun[] {
    this.#dropStretches();
    const runs: BlockRun[] = [];
    let left = count;
    let at = goal;
    let wrapped = false;
    while (left > 0) {
      const run = this.#freeRun(at, left);
      if (!run) {
        if (wrapped) throw unsupported(`the filesystem of ${this.#superblock.blocks} blocks is full; give it more with --vsize`);
        wrapped = true;
        at = 0;
        continue;
      }
      this.#mark(run, true);
      runs.push(run);
      left -= run.blocks;
      at = run.block + run.blocks;
    }
    return runs;
  }

  /** Gives blocks back. They can be allocated again from the next layer on. */
  free(run: BlockRun): void {
    this.#freed.push(run);
  }

  /** Ends a layer: clears what was freed, brings the bitmaps' checksums up to date, and returns the groups that changed. */
  settle(): number[] {
    this.#dropStretches();
    for (const run of this.#freed) this.#mark(run, false);
    this.#freed.length = 0;
    this.#growTail();
    for (const number of this.#changed) {
      if (!this.#superblock.hasMetadataCsum) continue;
      const bitmap = this.#blocks.get(this.#groups[number].blockBitmap);
      this.#groups[number].blockBitmapCsum = crc32cRaw(this.#superblock.seed, bitmap, 0, this.#superblock.blocksPerGroup / 8);
    }
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /** Marks blocks used, as a new filesystem does with its own metadata. */
  reserve(run: BlockRun): void {
    this.#mark(run, true);
  }

  /** Gives a group a bitmap although nothing in it is used. */
  initialize(group: number): void {
    this.#changeBitmap(group);
  }

  freeBlocks(): number {
    return this.#freeBlocks;
  }

  #groupBlocks(number: number): number {
    const { blocks, blocksPerGroup } = this.#superblock;
    return Math.min(blocksPerGroup, blocks - number * blocksPerGroup);
  }

  /** The first free run at or after `from`, no longer than `limit`. */
  #freeRun(from: number, limit: number): BlockRun | undefined {
    const { blocksPerGroup } = this.#superblock;
    let start = -1;
    for (let number = Math.floor(from / blocksPerGroup); number < this.#groups.length; number++) {
      const first = number * blocksPerGroup;
      const size = this.#groupBlocks(number);
      let bit = Math.max(0, from - first);
      if (bit >= size) continue; // behind the device's last block
      if (number >= this.#freeTail) {
        if (start < 0) start = first + bit;
        break;
      }
      if (this.#groups[number].freeBlocks === size) {
        if (start < 0) start = first + bit;
        if (first + size - start >= limit) return { block: start, blocks: limit };
        continue;
      }
      const bitmap = this.#bitmap(number);
      if (start < 0) {
        bit = this.#groups[number].freeBlocks === 0 ? size : nextBit(bitmap, bit, size, false);
        if (bit >= size) continue;
        start = first + bit;
      }
      const end = nextBit(bitmap, bit, size, true);
      if (end < size || first + end - start >= limit) return { block: start, blocks: Math.min(first + end - start, limit) };
    }
    return start < 0 ? undefined : { block: start, blocks: Math.min(this.#superblock.blocks - start, limit) };
  }

  #mark(run: BlockRun, used: boolean): void {
    const { blocksPerGroup } = this.#superblock;
    for (let at = run.block; at < run.block + run.blocks;) {
      const number = Math.floor(at / blocksPerGroup);
      const from = at - number * blocksPerGroup;
      const to = Math.min(blocksPerGroup, run.block + run.blocks - number * blocksPerGroup);
      const group = this.#groups[number];
      const bitmap = this.#changeBitmap(number);
      setBits(bitmap, from, to, used);
      group.freeBlocks += used ? from - to : to - from;
      this.#freeBlocks += used ? from - to : to - from;
      if (used) this.#freeTail = Math.max(this.#freeTail, number + 1);
      at += to - from;
    }
  }

  /** The bitmap of a group, made up while the group is marked as never used. */
  #bitmap(number: number): Uint8Array {
    const group = this.#groups[number];
    return group.flags & GROUP_FLAG.blockUninit ? this.#initialBitmap(number) : this.#blocks.get(group.blockBitmap);
  }

  #changeBitmap(number: number): Uint8Array {
    const group = this.#groups[number];
    if (group.flags & GROUP_FLAG.blockUninit) {
      this.#blocks.create(group.blockBitmap, this.#initialBitmap(number));
      group.flags &= ~GROUP_FLAG.blockUninit;
    }
    this.#changed.add(number);
    return this.#blocks.change(group.blockBitmap);
  }

  /** The bitmap that a never used group stands for: its own metadata, and what lies beyond the device. */
  #initialBitmap(number: number): Uint8Array {
    const { blocksPerGroup, blockBytes, inodesPerGroup, inodeBytes, groups, descriptorBytes, fields } = this.#superblock;
    const first = number * blocksPerGroup;
    const size = this.#groupBlocks(number);
    const bitmap = new Uint8Array(blockBytes);
    setBits(bitmap, size, blockBytes * 8, true);
    if (hasSuperblock(this.#superblock, number)) {
      setBits(bitmap, 0, 1 + Math.ceil((groups * descriptorBytes) / blockBytes) + fields.reservedGdtBlocks, true);
    }
    const group = this.#groups[number];
    const own: BlockRun[] = [
      { block: group.blockBitmap, blocks: 1 },
      { block: group.inodeBitmap, blocks: 1 },
      { block: group.inodeTable, blocks: (inodesPerGroup * inodeBytes) / blockBytes },
    ];
    for (const run of own) {
      const from = Math.max(0, run.block - first);
      const to = Math.min(size, run.block + run.blocks - first);
      if (from < to) setBits(bitmap, from, to, true);
    }
    return bitmap;
  }
}

/** Whether a group starts with a copy of the superblock. */
function hasSuperblock(superblock: Superblock, group: number): boolean {
  const { fields } = superblock;
  if (group === 0) return true;
  if (fields.compat & COMPAT.sparseSuper2) return group === fields.backupGroup0 || group === fields.backupGroup1;
  if (!(fields.roCompat & RO_COMPAT.sparseSuper)) return true;
  return group === 1 || [3, 5, 7].some((base) => isPowerOf(group, base));
}

function isPowerOf(value: number, base: number): boolean {
  let power = base;
  while (power < value) power *= base;
  return power === value;
}

/** The first bit at or after `from` that is set (or clear), or `end`. */
export function nextBit(bitmap: Uint8Array, from: number, end: number, set: boolean): number {
  const skip = set ? 0 : 0xff;
  let bit = from;
  while (bit < end) {
    if (bit % 8 === 0 && bitmap[bit >>> 3] === skip) {
      bit += 8;
      continue;
    }
    if (((bitmap[bit >>> 3] >>> (bit & 7)) & 1) === (set ? 1 : 0)) return bit;
    bit++;
  }
  return end;
}

export function setBits(bitmap: Uint8Array, from: number, to: number, set: boolean): void {
  let bit = from;
  while (bit < to) {
    if (bit % 8 === 0 && to - bit >= 8) {
      const bytes = (to - bit) >>> 3;
      bitmap.fill(set ? 0xff : 0, bit >>> 3, (bit >>> 3) + bytes);
      bit += bytes * 8;
      continue;
    }
    const mask = 1 << (bit & 7);
    if (set) bitmap[bit >>> 3] |= mask;
    else bitmap[bit >>> 3] &= ~mask;
    bit++;
  }
}
