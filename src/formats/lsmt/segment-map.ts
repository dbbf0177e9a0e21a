import { unsupported } from "../../errors.ts";
import { MAX_TABLE_SEGMENTS } from "./layout.ts";
import { MappingList } from "./mapping-list.ts";
import { HOLE, SegmentTable, ZEROS, type Segments } from "./segment-table.ts";

/** Segments of a full leaf; small enough to shift, large enough to have few leaves. */
const LEAF_SEGMENTS = 256;

/** Neighbouring segments, sorted, in columns of a fixed length. */
class Leaf {
  count = 0;
  readonly firstSector = new Float64Array(LEAF_SEGMENTS);
  readonly mappedSector = new Float64Array(LEAF_SEGMENTS);
  readonly sectors = new Uint32Array(LEAF_SEGMENTS);
  readonly tag = new Uint16Array(LEAF_SEGMENTS);
  readonly zeroed = new Uint8Array(LEAF_SEGMENTS);

  /** The first segment that ends behind `sector`; `count` if there is none. */
  find(sector: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.endOf(middle) > sector) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  endOf(i: number): number {
    return this.firstSector[i] + this.sectors[i];
  }

  insert(i: number, firstSector: number, sectors: number, mappedSector: number, zeroed: number, tag: number): void {
    this.#move(i + 1, i, this.count);
    this.count++;
    this.firstSector[i] = firstSector;
    this.sectors[i] = sectors;
    this.mappedSector[i] = mappedSector;
    this.zeroed[i] = zeroed;
    this.tag[i] = tag;
  }

  remove(from: number, to: number): void {
    this.#move(from, to, this.count);
    this.count -= to - from;
  }

  /** Segment `i` begins at `firstSector` from now on. */
  trimLeft(i: number, firstSector: number): void {
    const skipped = firstSector - this.firstSector[i];
    this.firstSector[i] = firstSector;
    this.sectors[i] -= skipped;
    if (this.zeroed[i] === 0) this.mappedSector[i] += skipped;
  }

  /** Moves the upper half to a new leaf. */
  split(): Leaf {
    const right = new Leaf();
    const half = this.count >>> 1;
    right.firstSector.set(this.firstSector.subarray(half, this.count));
    right.mappedSector.set(this.mappedSector.subarray(half, this.count));
    right.sectors.set(this.sectors.subarray(half, this.count));
    right.tag.set(this.tag.subarray(half, this.count));
    right.zeroed.set(this.zeroed.subarray(half, this.count));
    right.count = this.count - half;
    this.count = half;
    return right;
  }

  #move(to: number, from: number, end: number): void {
    this.firstSector.copyWithin(to, from, end);
    this.mappedSector.copyWithin(to, from, end);
    this.sectors.copyWithin(to, from, end);
    this.tag.copyWithin(to, from, end);
    this.zeroed.copyWithin(to, from, end);
  }
}

/** The segments of a layer that is being written: sorted, without overlaps, later ones replacing what they cover. */
export class SegmentMap {
  readonly #leaves: Leaf[] = [new Leaf()];
  #count = 0;

  /** A map of segments that came one after the other, each hiding what it overlaps. */
  static replay(log: Segments): SegmentMap {
    const map = new SegmentMap();
    for (let i = 0; i < log.count; i++) {
      map.insert(log.firstSector[i], log.sectors[i], log.mappedSector[i], log.zeroed[i] === 1, log.tag[i]);
    }
    return map;
  }

  get count(): number {
    return this.#count;
  }

  insert(firstSector: number, sectors: number, mappedSector: number, zeroed = false, tag = 0): void {
    if (this.#count >= MAX_TABLE_SEGMENTS) {
      throw unsupported(`lsmt: a writable layer has ${this.#count} segments, expected at most ${MAX_TABLE_SEGMENTS}: commit it`);
    }
    this.#cut(firstSector, firstSector + sectors);
    const leaf = this.#leafOf(firstSector);
    this.#add(leaf, this.#leaves[leaf].find(firstSector), firstSector, sectors, mappedSector, zeroed ? 1 : 0, tag);
  }

  /** Visits a range as `SegmentTable.forRange` does. The map must not change meanwhile. */
  forRange(
    firstSector: number,
    endSector: number,
    visit: (firstSector: number, sectors: number, mappedSector: number, tag: number) => void,
  ): void {
    let at = firstSector;
    let l = this.#leafOf(firstSector);
    let i = this.#leaves[l].find(firstSector);
    while (at < endSector) {
      while (l < this.#leaves.length && i >= this.#leaves[l].count) {
        l++;
        i = 0;
      }
      if (l === this.#leaves.length) {
        visit(at, endSector - at, ZEROS, HOLE);
        return;
      }
      const leaf = this.#leaves[l];
      const start = Math.min(leaf.firstSector[i], endSector);
      if (start > at) visit(at, start - at, ZEROS, HOLE);
      at = Math.max(at, start);
      if (at >= endSector) return;
      const end = Math.min(leaf.endOf(i), endSector);
      visit(at, end - at, leaf.zeroed[i] === 1 ? ZEROS : leaf.mappedSector[i] + at - leaf.firstSector[i], leaf.tag[i]);
      at = end;
      i++;
    }
  }

  /** The segments as they are now. */
  toTable(): SegmentTable {
    const list = new MappingList();
    for (const leaf of this.#leaves) {
      for (let i = 0; i < leaf.count; i++) {
        list.add(leaf.firstSector[i], leaf.sectors[i], leaf.mappedSector[i], leaf.zeroed[i] === 1, leaf.tag[i]);
      }
    }
    return SegmentTable.from(list);
  }

  /** The first leaf that has a segment ending behind `sector`; the last leaf if there is none. */
  #leafOf(sector: number): number {
    let low = 0;
    let high = this.#leaves.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const leaf = this.#leaves[middle];
      if (leaf.endOf(leaf.count - 1) > sector) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Takes `[first, end)` out of what is there. */
  #cut(first: number, end: number): void {
    for (let l = this.#leafOf(first); l < this.#leaves.length;) {
      const leaf = this.#leaves[l];
      let i = leaf.find(first);
      if (i < leaf.count && leaf.firstSector[i] >= end) return;
      if (i < leaf.count && leaf.firstSector[i] < first) {
        if (leaf.endOf(i) > end) {
          this.#splitAround(l, i, first, end);
          return;
        }
        leaf.sectors[i] = first - leaf.firstSector[i];
        i++;
      }
      let covered = i;
      while (covered < leaf.count && leaf.endOf(covered) <= end) covered++;
      leaf.remove(i, covered);
      this.#count -= covered - i;
      if (i < leaf.count) {
        if (leaf.firstSector[i] < end) leaf.trimLeft(i, end);
        return;
      }
      if (leaf.count === 0 && this.#leaves.length > 1) this.#leaves.splice(l, 1);
      else l++;
    }
  }

  /** Segment `i` loses its middle. */
  #splitAround(l: number, i: number, first: number, end: number): void {
    const leaf = this.#leaves[l];
    const start = leaf.firstSector[i];
    const mapped = leaf.zeroed[i] === 1 ? leaf.mappedSector[i] : leaf.mappedSector[i] + end - start;
    const rest = leaf.endOf(i) - end;
    leaf.sectors[i] = first - start;
    this.#add(l, i + 1, end, rest, mapped, leaf.zeroed[i], leaf.tag[i]);
  }

  #add(l: number, i: number, firstSector: number, sectors: number, mappedSector: number, zeroed: number, tag: number): void {
    let leaf = this.#leaves[l];
    let at = i;
    if (leaf.count === LEAF_SEGMENTS) {
      // What is written front to back fills its leaves.
      const atEnd = at === leaf.count;
      const right = atEnd ? new Leaf() : leaf.split();
      this.#leaves.splice(l + 1, 0, right);
      if (at > leaf.count || atEnd) {
        at -= leaf.count;
        leaf = right;
      }
    }
    leaf.insert(at, firstSector, sectors, mappedSector, zeroed, tag);
    this.#count++;
  }
}
