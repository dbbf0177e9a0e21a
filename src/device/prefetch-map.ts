import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import type { SegmentTable } from "../formats/lsmt/segment-table.ts";
import type { TraceRecord } from "../formats/trace/layout.ts";
import type { ByteString } from "../tree/entry.ts";
import type { FilesystemReader } from "../tree/filesystem-reader.ts";
import type { Device } from "./device.ts";
import { PrefetchLayers } from "./prefetch-layers.ts";

/** A regular file of an image, by the first path that leads to it. */
export interface TracedFile {
  readonly path: ByteString;
  readonly size: number;
}

/** What a part of a record is: a file's data, something of the file system's own, or nothing that the device shows. */
export type TracePart =
  | { readonly kind: "file"; readonly file: TracedFile; readonly deviceOffset: number; readonly length: number }
  | { readonly kind: "metadata"; readonly deviceOffset: number; readonly length: number }
  /** Layers above hide it, or it belongs to the layer's format. */
  | { readonly kind: "hidden"; readonly length: number };

/** A range that lies somewhere else too: `[start, end)` there begins at `at` here. */
interface Stretch<T> {
  readonly start: number;
  readonly end: number;
  readonly at: T;
}

/** Says what the records of a trace are on an image's device, and in its files. */
export class TraceMap {
  readonly #layers: PrefetchLayers;
  /** Of each file of the layers: which of its bytes the device shows, and where. */
  readonly #shown: readonly (readonly Stretch<number>[])[];
  readonly #files: readonly Stretch<TracedFile>[];
  readonly #segments: SegmentTable;
  /** Used bytes before each segment, and all of them. */
  readonly #used: Float64Array;

  private constructor(device: Device, files: readonly Stretch<TracedFile>[]) {
    this.#layers = new PrefetchLayers(device);
    this.#shown = shownParts(device);
    this.#files = files;
    this.#segments = device.segments;
    this.#used = usedBefore(device.segments);
  }

  /** Reads the whole tree of the file system on a device. */
  static async open(device: Device, filesystem: FilesystemReader): Promise<TraceMap> {
    return new TraceMap(
      device,
      (await dataOfFiles(filesystem)).toSorted((a, b) => a.start - b.start),
    );
  }

  /** Bytes of the device that a layer has put something on. */
  get usedBytes(): number {
    return this.#used.at(-1)!;
  }

  /** How many of the used bytes are before an offset: a place on a device that is mostly empty. */
  placeOf(deviceOffset: number): number {
    const segments = this.#segments;
    const next = segments.find(deviceOffset / SECTOR_BYTES);
    if (next === segments.count || segments.zeroed[next] !== 0) return this.#used[next];
    return this.#used[next] + Math.max(0, deviceOffset - segments.firstSector[next] * SECTOR_BYTES);
  }

  /** The parts of a record, in its order; together they have its length. */
  partsOf({ layer, offset, length }: TraceRecord): TracePart[] {
    const file = this.#layers.fileOf(layer);
    if (file === undefined) return [{ kind: "hidden", length }];
    const parts: TracePart[] = [];
    forStretches(this.#shown[file], offset, length, (bytes, shown, within) => {
      if (shown === undefined) parts.push({ kind: "hidden", length: bytes });
      else this.#addDeviceParts(shown.at + within, bytes, parts);
    });
    return parts;
  }

  #addDeviceParts(start: number, length: number, parts: TracePart[]): void {
    let deviceOffset = start;
    forStretches(this.#files, start, length, (bytes, found) => {
      if (found === undefined) parts.push({ kind: "metadata", deviceOffset, length: bytes });
      else parts.push({ kind: "file", file: found.at, deviceOffset, length: bytes });
      deviceOffset += bytes;
    });
  }
}

/** Visits a range from front to back: the stretches that it meets, and what is between them. */
function forStretches<T>(
  stretches: readonly Stretch<T>[],
  offset: number,
  length: number,
  visit: (length: number, stretch: Stretch<T> | undefined, within: number) => void,
): void {
  const end = offset + length;
  let at = offset;
  for (let i = firstBehind(stretches, offset); i < stretches.length && stretches[i].start < end; i++) {
    const stretch = stretches[i];
    if (stretch.end <= at) continue;
    if (stretch.start > at) visit(stretch.start - at, undefined, 0);
    at = Math.max(at, stretch.start);
    const stop = Math.min(stretch.end, end);
    visit(stop - at, stretch, at - stretch.start);
    at = stop;
  }
  if (at < end) visit(end - at, undefined, 0);
}

function firstBehind(stretches: readonly Stretch<unknown>[], offset: number): number {
  let low = 0;
  let high = stretches.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (stretches[middle].end <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

function usedBefore({ count, sectors, zeroed }: SegmentTable): Float64Array {
  const used = new Float64Array(count + 1);
  for (let i = 0; i < count; i++) used[i + 1] = used[i] + (zeroed[i] === 0 ? sectors[i] * SECTOR_BYTES : 0);
  return used;
}

function shownParts({ layers, segments }: Device): Stretch<number>[][] {
  const shown: Stretch<number>[][] = layers.flatMap(({ files }) => files.map(() => []));
  for (let i = 0; i < segments.count; i++) {
    if (segments.zeroed[i] !== 0) continue;
    const start = segments.mappedSector[i] * SECTOR_BYTES;
    shown[segments.tag[i]].push({ start, end: start + segments.sectors[i] * SECTOR_BYTES, at: segments.firstSector[i] * SECTOR_BYTES });
  }
  return shown.map((stretches) => stretches.toSorted((a, b) => a.start - b.start));
}

/** Where the data of all regular files is on the device. */
async function dataOfFiles(filesystem: FilesystemReader): Promise<Stretch<TracedFile>[]> {
  const found: Stretch<TracedFile>[] = [];
  const seen = new Set<number>();
  const pending: { inode: number; path: ByteString }[] = [{ inode: filesystem.root, path: "" }];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    for (const { name, inode } of await filesystem.list(directory.inode)) {
      const { type, size } = await filesystem.inode(inode);
      const path = `${directory.path}/${name}`;
      if (type === "directory") pending.push({ inode, path });
      if (type !== "file" || seen.has(inode)) continue;
      seen.add(inode);
      const file = { path, size };
      for (const { deviceOffset, length } of await filesystem.extents(inode)) {
        const end = Math.ceil((deviceOffset + length) / SECTOR_BYTES) * SECTOR_BYTES;
        found.push({ start: deviceOffset, end, at: file });
      }
    }
  }
  return found;
}
