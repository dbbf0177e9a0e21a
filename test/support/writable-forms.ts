import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { SparseLayer } from "../../src/formats/lsmt/sparse-layer.ts";
import { WarpUpper } from "../../src/formats/lsmt/warp-upper.ts";
import type { WritableLayer } from "../../src/formats/lsmt/writable-layer.ts";
import type { RecordedDisk, RecordedFile } from "./recorded-file.ts";

/** The files of a writable layer; a sparse one has no use for the index. */
export interface LayerFiles {
  readonly data: RecordedFile;
  readonly index: RecordedFile;
}

export function newFiles(disk: RecordedDisk, name: string): LayerFiles {
  return { data: disk.file(`${name} data`), index: disk.file(`${name} index`) };
}

/** A form of writable layers, over files of a recorded disk. */
export interface Form {
  readonly name: "append" | "sparse" | "warp";
  create(files: LayerFiles, virtualSize: number, uuid: string): Promise<WritableLayer>;
  open(files: LayerFiles): Promise<WritableLayer>;
}

export const forms: readonly Form[] = [
  {
    name: "append",
    create: async ({ data, index }, virtualSize, uuid) => await AppendLayer.create(data, index, { virtualSize, uuid }),
    open: async ({ data, index }) => await AppendLayer.open(data, index),
  },
  {
    name: "sparse",
    create: async ({ data }, virtualSize, uuid) => await SparseLayer.create(data, { virtualSize, uuid }),
    open: async ({ data }) => await SparseLayer.open(data, data.extents),
  },
  {
    name: "warp",
    create: async ({ data, index }, virtualSize, uuid) => await WarpUpper.create(data, index, { virtualSize, uuid }),
    open: async ({ data, index }) => await WarpUpper.open(data, index),
  },
];

export const UUID = "01234567-89AB-CDEF-0123-456789ABCDEF";
