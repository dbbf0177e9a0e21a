import type { BlockDevice } from "../../bytes/block-device.ts";
import { checkRange, type ByteSource } from "../../bytes/source.ts";
import { checkWriteRange } from "../../bytes/writable-file.ts";
import { LazyError } from "../../errors.ts";
import { DataRuns } from "./data-runs.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { mergeSegments } from "./merge-segments.ts";
import { RangeQueue } from "./range-queue.ts";
import { HOLE, SegmentTable, ZEROS } from "./segment-table.ts";
import type { WritableLayer } from "./writable-layer.ts";

/** Writes that touch the same block of this size take turns; a whole number of every layer's units. */
const TURN_BYTES = 4096;

/** A device below a writable layer. What `segments` does not map, or maps to zeros, is known to read as zeros without reading it. */
export interface LowerDevice extends ByteSource {
  readonly segments?: SegmentTable;
}

/**
 * Puts a writable layer on top of a device (layers that `stackLayers` merged, for example), or on nothing. Closing the result closes all;
 * when this fails, nothing is closed. A layer that has no size yet gets that of the device below.
 */
export async function openWritableStack(lowers: LowerDevice | undefined, upper: WritableLayer): Promise<WritableStack> {
  if (upper.virtualSize === 0) {
    if (lowers === undefined || lowers.size === 0) {
      throw new LazyError("USAGE", `${upper.name}: lsmt layer has no size, and there is nothing below it that has one`);
    }
    await upper.resize(lowers.size);
  }
  return new WritableStack(lowers, upper);
}

/** A device of which the writable layer on top takes all that is written. Reads and writes may begin and end anywhere. */
export class WritableStack implements BlockDevice {
  readonly #lowers: LowerDevice | undefined;
  /** Layers that were on top before. */
  #sealed = SegmentTable.from(mergeSegments([]));
  #sealedFiles: readonly ByteSource[] = [];
  #upper: WritableLayer;
  readonly #turns = new RangeQueue();

  constructor(lowers: LowerDevice | undefined, upper: WritableLayer) {
    this.#lowers = lowers;
    this.#upper = upper;
  }

  get size(): number {
    return this.#upper.virtualSize;
  }
  get name(): string {
    return this.#upper.name;
  }
  /** What each level maps, the uppermost first; what is below is left out if it does not say. They are those of this moment. */
  get segments(): readonly Pick<SegmentTable, "forRange">[] {
    const below = this.#lowers?.segments;
    return [this.#upper.segments, this.#sealed, ...(below === undefined ? [] : [below])];
  }
  /** The layer that is written to. */
  get upper(): WritableLayer {
    return this.#upper;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const runs = new DataRuns(offset, length);
    this.#visit(runs.firstSector, runs.endSector, (firstSector, sectors, source, mappedSector) => {
      if (source !== undefined) runs.add(firstSector, sectors, source, mappedSector);
    });
    return await runs.read();
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkWriteRange(this, offset, bytes.length);
    if (bytes.length === 0) return;
    await this.#inTurn(offset, bytes.length, async () => await this.#put(offset, bytes));
  }

  async discard(offset: number, length: number): Promise<void> {
    checkWriteRange(this, offset, length);
    if (length === 0) return;
    await this.#inTurn(offset, length, async () => await this.#putZeros(offset, length));
  }

  async flush(): Promise<void> {
    await this.#upper.flush();
  }

  /** Changes the size of the device, a multiple of 512; what is added reads as zeros. */
  async resize(size: number): Promise<void> {
    await this.#turns.runAlone(async () => {
      const before = this.size;
      await this.#upper.resize(size);
      if (size > before) await this.#putZeros(before, size - before);
      await this.#upper.flush();
    });
  }

  /**
   * A live snapshot: seals the layer on top, which stays where it is as a layer below, and puts `next`, which is empty, over it. Writes
   * that are underway end on the old one; those that come meanwhile wait for the new one, and reads go on. `publish` runs in between and
   * makes known, for whoever opens the device after a crash, that the old layer is finished and `next` is on top: no write reaches `next`
   * before it has ended. When it or anything before it fails, the old layer is written to as before, and `next` stays with the caller.
   */
  async restack(next: WritableLayer, publish: () => Promise<void>): Promise<void> {
    await this.#turns.runAlone(async () => {
      if (next.segments.count > 0) throw new LazyError("USAGE", `${next.name}: holds data already, expected a new layer for a snapshot`);
      if (next.virtualSize !== 0 && next.virtualSize !== this.size) {
        throw new LazyError("USAGE", `${next.name}: lsmt layer is for a device of ${next.virtualSize} bytes, this one has ${this.size}`);
      }
      if (next.virtualSize === 0) await next.resize(this.size);
      const before = this.#upper;
      const sealed = await before.seal();
      const merged = SegmentTable.from(mergeSegments([this.#sealed, sealed.segments], [0, this.#sealedFiles.length]));
      await publish();
      this.#sealed = merged;
      this.#sealedFiles = [...this.#sealedFiles, ...sealed.files];
      this.#upper = next;
      await before.retire();
    });
  }

  /** Flushes and closes all layers, once what is underway has ended. */
  async close(): Promise<void> {
    await this.#turns.runAlone(async () => {
      try {
        await this.#upper.close();
      } finally {
        for (const file of this.#sealedFiles) await file.close();
        await this.#lowers?.close();
      }
    });
  }

  async #inTurn(offset: number, length: number, task: () => Promise<void>): Promise<void> {
    const first = Math.floor(offset / TURN_BYTES);
    await this.#turns.run(first, Math.ceil((offset + length) / TURN_BYTES), task);
  }

  /** Writes anywhere: what is missing of whole units is read and written again. */
  async #put(offset: number, bytes: Uint8Array): Promise<void> {
    const { unitBytes } = this.#upper;
    const end = offset + bytes.length;
    const start = Math.floor(offset / unitBytes) * unitBytes;
    const stop = Math.min(Math.ceil(end / unitBytes) * unitBytes, this.size);
    if (start === offset && stop === end) {
      await this.#upper.write(offset, bytes);
      return;
    }
    const units = Buffer.allocUnsafe(stop - start);
    units.set(await this.read(start, offset - start), 0);
    units.set(bytes, offset - start);
    units.set(await this.read(end, stop - end), end - start);
    await this.#upper.write(start, units);
  }

  async #putZeros(offset: number, length: number): Promise<void> {
    const { unitBytes } = this.#upper;
    const end = offset + length;
    const start = Math.min(Math.ceil(offset / unitBytes) * unitBytes, end);
    const stop = end === this.size ? end : Math.max(Math.floor(end / unitBytes) * unitBytes, start);
    if (start > offset) await this.#put(offset, new Uint8Array(start - offset));
    for (const [first, pieceEnd] of this.#nonZero(start, stop)) await this.#upper.discard(first, pieceEnd - first);
    if (end > stop) await this.#put(stop, new Uint8Array(end - stop));
  }

  /** Whole units of a range that may hold something else than zeros. */
  #nonZero(start: number, stop: number): [offset: number, end: number][] {
    const { unitBytes } = this.#upper;
    const found: [number, number][] = [];
    this.#visit(start / SECTOR_BYTES, stop / SECTOR_BYTES, (firstSector, sectors, source) => {
      if (source === undefined) return;
      const first = Math.floor((firstSector * SECTOR_BYTES) / unitBytes) * unitBytes;
      const end = Math.min(Math.ceil(((firstSector + sectors) * SECTOR_BYTES) / unitBytes) * unitBytes, stop);
      const last = found.at(-1);
      if (last !== undefined && last[1] >= first) last[1] = Math.max(last[1], end);
      else found.push([first, end]);
    });
    return found;
  }

  /** Visits a range from the front: where each piece lies, or no source where it reads as zeros. */
  #visit(
    firstSector: number,
    endSector: number,
    visit: (firstSector: number, sectors: number, source: ByteSource | undefined, mappedSector: number) => void,
  ): void {
    this.#upper.segments.forRange(firstSector, endSector, (first, sectors, mappedSector, tag) => {
      if (tag === HOLE) this.#visitSealed(first, sectors, visit);
      else if (mappedSector === ZEROS) visit(first, sectors, undefined, 0);
      else visit(first, sectors, this.#upperFile(tag), mappedSector);
    });
  }

  #visitSealed(
    firstSector: number,
    count: number,
    visit: (firstSector: number, sectors: number, source: ByteSource | undefined, mappedSector: number) => void,
  ): void {
    this.#sealed.forRange(firstSector, firstSector + count, (first, sectors, mappedSector, tag) => {
      if (tag === HOLE) this.#visitLowers(first, sectors, visit);
      else if (mappedSector === ZEROS) visit(first, sectors, undefined, 0);
      else visit(first, sectors, this.#sealedFiles[tag], mappedSector);
    });
  }

  #visitLowers(
    firstSector: number,
    count: number,
    visit: (firstSector: number, sectors: number, source: ByteSource | undefined, mappedSector: number) => void,
  ): void {
    const lowers = this.#lowers;
    const lowerSectors = Math.floor((lowers?.size ?? 0) / SECTOR_BYTES);
    const inside = Math.max(0, Math.min(count, lowerSectors - firstSector));
    if (lowers?.segments !== undefined) {
      lowers.segments.forRange(firstSector, firstSector + inside, (first, sectors, mappedSector) => {
        visit(first, sectors, mappedSector === ZEROS ? undefined : lowers, first);
      });
    } else if (inside > 0) {
      visit(firstSector, inside, lowers, firstSector);
    }
    if (inside < count) visit(firstSector + inside, count - inside, undefined, 0);
  }

  #upperFile(tag: number): ByteSource {
    const file = this.#upper.files.at(tag);
    if (file !== undefined) return file;
    throw new LazyError(
      "USAGE",
      `${this.#upper.name}: part of the device is in the layer's target, which was not given when it was opened`,
    );
  }
}
