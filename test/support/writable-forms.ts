import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { SparseLayer } from "../../src/formats/lsmt/sparse-layer.ts";
import type { UnsyncedPlace } from "../../src/formats/lsmt/unsynced-log.ts";
import { WarpUpper } from "../../src/formats/lsmt/warp-upper.ts";
import type { WritableLayer } from "../../src/formats/lsmt/writable-layer.ts";
import type { RecordedDisk, RecordedFile } from "./recorded-file.ts";

/** The files of a writable layer; a sparse one has no use for any but the first. */
export interface LayerFiles {
  readonly data: RecordedFile;
  readonly index: RecordedFile;
  /** What is written and not flushed. */
  readonly unsynced: RecordedFile;
}

export function newFiles(disk: RecordedDisk, name: string): LayerFiles {
  return { data: disk.file(`${name} data`), index: disk.file(`${name} index`), unsynced: disk.file(`${name} unsynced`) };
}

/** Files that were closed, once more. */
export function reopened(files: LayerFiles): LayerFiles {
  files.data.closed = files.index.closed = files.unsynced.closed = false;
  return files;
}

export const BOOT_ID = "b0073d00-0000-4000-8000-000000000001";

export function placeOf({ unsynced }: LayerFiles, bootId: string = BOOT_ID): UnsyncedPlace & { readonly notices: string[] } {
  const notices: string[] = [];
  return { file: unsynced, bootId, notices, notice: (message) => void notices.push(message) };
}

/** A form of writable layers, over files of a recorded disk. */
export interface Form {
  readonly name: "append" | "sparse" | "warp";
  create(files: LayerFiles, virtualSize: number, uuid: string): Promise<WritableLayer>;
  /** `bootId`: of the machine's run. */
  open(files: LayerFiles, bootId?: string): Promise<WritableLayer>;
}

export const forms: readonly Form[] = [
  {
    name: "append",
    create: async (files, virtualSize, uuid) => await AppendLayer.create(files.data, files.index, { virtualSize, uuid }, placeOf(files)),
    open: async (files, bootId) => await AppendLayer.open(files.data, files.index, placeOf(files, bootId)),
  },
  {
    name: "sparse",
    create: async ({ data }, virtualSize, uuid) => await SparseLayer.create(data, { virtualSize, uuid }),
    open: async ({ data }) => await SparseLayer.open(data, data.extents),
  },
  {
    name: "warp",
    create: async (files, virtualSize, uuid) => {
      await (await WarpUpper.create(files.data, files.index, { virtualSize, uuid })).close();
      return await WarpUpper.open(files.data, files.index, undefined, placeOf(reopened(files)));
    },
    open: async (files, bootId) => await WarpUpper.open(files.data, files.index, undefined, placeOf(files, bootId)),
  },
];

export const UUID = "01234567-89AB-CDEF-0123-456789ABCDEF";
