import type { PayloadPlace } from "../../tree/filesystem-writer.ts";
import type { BlockRun } from "./block-allocator.ts";

type Place = { -readonly [K in keyof PayloadPlace]: PayloadPlace[K] };

/** The places of a layer's files. Neighbours are joined at once, so that files that follow each other take no memory. */
export class PayloadPlaces {
  #places: Place[] = [];
  #dropped: BlockRun[] = [];

  add(place: PayloadPlace): void {
    const last = this.#places.at(-1);
    if (last && last.block + last.blocks === place.block && last.payloadBlock + last.blocks === place.payloadBlock) {
      last.blocks += place.blocks;
    } else {
      this.#places.push({ ...place });
    }
  }

  /** Forgets what belongs to blocks that were freed; none of them is handed out again before `take`. */
  drop(run: BlockRun): void {
    this.#dropped.push(run);
  }

  /** All places, ascending by payload block; none are left. */
  take(): PayloadPlace[] {
    const dropped = this.#dropped.toSorted((a, b) => a.block - b.block);
    const places = dropped.length === 0 ? this.#places : this.#places.flatMap((place) => without(place, dropped));
    this.#places = [];
    this.#dropped = [];
    return places.sort((a, b) => a.payloadBlock - b.payloadBlock);
  }
}

/** What is left of a place without some runs, which are ascending and disjoint. */
function without({ block, payloadBlock, blocks }: PayloadPlace, runs: readonly BlockRun[]): Place[] {
  const left: Place[] = [];
  const end = block + blocks;
  let at = block;
  for (let index = firstEndingBehind(block, runs); index < runs.length && runs[index].block < end; index++) {
    const run = runs[index];
    if (run.block > at) left.push({ block: at, payloadBlock: payloadBlock + at - block, blocks: run.block - at });
    at = run.block + run.blocks;
  }
  if (at < end) left.push({ block: at, payloadBlock: payloadBlock + at - block, blocks: end - at });
  return left;
}

function firstEndingBehind(block: number, runs: readonly BlockRun[]): number {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runs[middle].block + runs[middle].blocks > block) high = middle;
    else low = middle + 1;
  }
  return low;
}
