import { checkRange, type ByteSource } from "../../bytes/source.ts";
import { LazyError, unsupported } from "../../errors.ts";
import { DataRuns } from "./data-runs.ts";
import { MAX_STACK_LAYERS } from "./layout.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import { mergeSegments } from "./merge-segments.ts";
import { SegmentTable, ZEROS } from "./segment-table.ts";

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
    const runs = new DataRuns(offset, length);
    this.segments.forRange(runs.firstSector, runs.endSector, (firstSector, sectors, mappedSector, tag) => {
      if (mappedSector !== ZEROS) runs.add(firstSector, sectors, this.files[tag], mappedSector);
    });
    return await runs.read();
  }

  async close(): Promise<void> {
    await Promise.all(this.layers.map((layer) => layer.close()));
  }
}
