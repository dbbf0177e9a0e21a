import { checkRange, type ByteSource } from "../../bytes/source.ts";
import { LazyError, unsupported } from "../../errors.ts";
import { MAX_STACK_LAYERS, SECTOR_BYTES } from "./layout.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import { mergeSegments } from "./merge-segments.ts";
import { SegmentTable, ZEROS } from "./segment-table.ts";

/** Reads of layers that one read of the stack has underway at a time. */
const MAX_READS = 16;

/** Stacks layers, the lowest first, to one device. Closing the stack closes the layers. */
export function stackLayers(layers: readonly LsmtLayer[]): StackSource {
  if (layers.length === 0) throw new LazyError("USAGE", "lsmt: a stack needs at least one layer");
  if (layers.length > MAX_STACK_LAYERS) throw unsupported(`lsmt: a stack of ${layers.length} layers, expected at most ${MAX_STACK_LAYERS}`);
  const firstFiles: number[] = [];
  let files = 0;
  for (const layer of layers) {
    firstFiles.push(files);
    files += layer.files.length;
  }
  const merged = mergeSegments(
    layers.map((layer) => layer.segments),
    firstFiles,
  );
  return new StackSource(layers, SegmentTable.from(merged));
}

/** A stretch of the device that lies in one piece in a layer's file. */
interface DataRun {
  /** Offset in the answer. */
  at: number;
  /** Offset in the file. */
  offset: number;
  bytes: number;
  file: number;
}

/** The merged device. What no layer maps reads as zeros. */
export class StackSource implements ByteSource {
  readonly size: number;
  readonly layers: readonly LsmtLayer[];
  /** The files of all layers, the lowest layer's first. */
  readonly files: readonly ByteSource[];
  /** All layers in one table; the tag is the position in `files`. */
  readonly segments: SegmentTable;

  constructor(layers: readonly LsmtLayer[], segments: SegmentTable) {
    this.layers = layers;
    this.files = layers.flatMap((layer) => layer.files);
    this.segments = segments;
    this.size = layers.findLast((layer) => layer.virtualSize > 0)?.virtualSize ?? 0;
  }

  get name(): string {
    return this.layers.length === 1 ? this.layers[0].name : `stack of ${this.layers.length} layers up to ${this.layers.at(-1)?.name}`;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const runs = this.#dataRuns(offset, length);
    if (runs.length === 1 && runs[0].bytes === length) return await this.#readRun(runs[0]);
    const output = Buffer.alloc(length);
    for (let i = 0; i < runs.length; i += MAX_READS) {
      await Promise.all(
        runs.slice(i, i + MAX_READS).map(async (run) => {
          output.set(await this.#readRun(run), run.at);
        }),
      );
    }
    return output;
  }

  async close(): Promise<void> {
    await Promise.all(this.layers.map((layer) => layer.close()));
  }

  #readRun(run: DataRun): Promise<Uint8Array> {
    return this.files[run.file].read(run.offset, run.bytes);
  }

  /** Where the data of a range lies; neighbours in the same file are joined. */
  #dataRuns(offset: number, length: number): DataRun[] {
    const runs: DataRun[] = [];
    const end = offset + length;
    let last: DataRun | undefined;
    this.segments.forRange(Math.floor(offset / SECTOR_BYTES), Math.ceil(end / SECTOR_BYTES), (firstSector, sectors, mappedSector, tag) => {
      if (mappedSector === ZEROS) return;
      const start = Math.max(firstSector * SECTOR_BYTES, offset);
      const bytes = Math.min((firstSector + sectors) * SECTOR_BYTES, end) - start;
      const from = mappedSector * SECTOR_BYTES + (start - firstSector * SECTOR_BYTES);
      if (last && last.file === tag && last.offset + last.bytes === from && last.at + last.bytes === start - offset) {
        last.bytes += bytes;
      } else {
        last = { at: start - offset, offset: from, bytes, file: tag };
        runs.push(last);
      }
    });
    return runs;
  }
}
