import { areaBytes, encodeArea, encodeEntry, entryBytes, MAX_SHARED, type Xattr } from "./xattr.ts";
import { NO_XATTRS, type XattrSets } from "./xattr-sets.ts";

interface PlannedArea {
  /** Numbers of shared attributes: their offsets in the shared area, in words. */
  readonly shared: readonly number[];
  readonly inline: readonly Xattr[];
  readonly bytes: number;
}

/** Which attributes of a tree are stored once for all: those that more than one inode has. */
export class XattrPlan {
  readonly #sets: XattrSets;
  /** Shared attributes in the order in which inodes have them first. */
  readonly #shared: Xattr[] = [];
  readonly #numbers = new Map<number, number>();
  readonly #areas = new Map<number, PlannedArea>();
  #sharedBytes = 0;

  /** @param uses how many inodes have each set, in the order of the inodes that have them first */
  constructor(sets: XattrSets, uses: ReadonlyMap<number, number>) {
    this.#sets = sets;
    const pairUses = new Map<number, number>();
    for (const [set, count] of uses) {
      for (const pair of sets.pairs(set)) pairUses.set(pair, (pairUses.get(pair) ?? 0) + count);
    }
    for (const [pair, count] of pairUses) if (count > 1) this.#share(pair);
  }

  #share(pair: number): void {
    const xattr = this.#sets.pair(pair);
    this.#numbers.set(pair, this.#sharedBytes / 4);
    this.#shared.push(xattr);
    this.#sharedBytes += entryBytes(xattr);
  }

  get sharedBytes(): number {
    return this.#sharedBytes;
  }

  /** Bytes that a set takes in an inode. */
  areaBytes(set: number): number {
    return set === NO_XATTRS ? 0 : this.#area(set).bytes;
  }

  encodeArea(set: number, target: Buffer, offset: number): void {
    if (set === NO_XATTRS) return;
    const { shared, inline } = this.#area(set);
    encodeArea(shared, inline, target, offset);
  }

  encodeShared(target: Buffer, offset: number): void {
    let at = offset;
    for (const xattr of this.#shared) at = encodeEntry(xattr, target, at);
  }

  #area(set: number): PlannedArea {
    const known = this.#areas.get(set);
    if (known) return known;
    const shared: number[] = [];
    const inline: Xattr[] = [];
    for (const pair of this.#sets.pairs(set)) {
      const number = this.#numbers.get(pair);
      if (number !== undefined && shared.length < MAX_SHARED) shared.push(number);
      else inline.push(this.#sets.pair(pair));
    }
    const area = { shared, inline, bytes: areaBytes(shared.length, inline) };
    this.#areas.set(set, area);
    return area;
  }
}
