import { access } from "node:fs/promises";
import { DiskFile, type FileSource } from "../../bytes/file.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { AppendLayer } from "../../formats/lsmt/append-layer.ts";
import { openLayer, type LsmtLayer } from "../../formats/lsmt/lsmt-reader.ts";
import { SparseLayer } from "../../formats/lsmt/sparse-layer.ts";
import { openUnsealedLayer, writableFormOf } from "../../formats/lsmt/unsealed-layer.ts";
import { openUnsealedWarpLayer } from "../../formats/lsmt/unsealed-warp-layer.ts";
import type { WritableLayer } from "../../formats/lsmt/writable-layer.ts";
import { WarpUpper } from "../../formats/lsmt/warp-upper.ts";
import { findDataExtents } from "./data-extents.ts";
import { openSource } from "./source-file.ts";

/** What a layer is that is to be committed. */
export type CommitForm = "writable" | "sealed" | "warp";

/** Opens a layer for reading. A sealed one has no index file of its own; a sparse one does without. */
export async function openCommitSource(form: CommitForm, data: string, index: string): Promise<LsmtLayer> {
  const files: ByteSource[] = [];
  const open = async (path: string): Promise<FileSource> => {
    const file = await openSource(path);
    files.push(file);
    return file;
  };
  try {
    const dataFile = await open(data);
    if (form === "sealed") return await openLayer(dataFile);
    if (form === "warp") return await openUnsealedWarpLayer(dataFile, await open(index));
    if ((await writableFormOf(dataFile)) === "append") return await openUnsealedLayer(dataFile, await open(index));
    return await openUnsealedLayer(dataFile, undefined, await findDataExtents(data));
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/** Opens a layer with all of its data in one file, to go on writing it. */
export async function openWritable(data: string, index: string): Promise<WritableLayer> {
  const files: DiskFile[] = [];
  const open = async (path: string): Promise<DiskFile> => {
    const file = await DiskFile.open(path);
    files.push(file);
    return file;
  };
  try {
    const dataFile = await open(data);
    const isSparse = (await writableFormOf(dataFile)) === "sparse";
    return isSparse ? await SparseLayer.open(dataFile, await findDataExtents(data)) : await AppendLayer.open(dataFile, await open(index));
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/** Opens the files of a turboOCI layer, to go on writing it. `target` is the tar that it refers to; nothing is read of it. */
export async function openWarpUpper(data: string, index: string, target: string): Promise<WarpUpper> {
  const files: ByteSource[] = [];
  const open = async (path: string): Promise<DiskFile> => {
    const file = await DiskFile.open(path);
    files.push(file);
    return file;
  };
  try {
    await access(target);
    return await WarpUpper.open(await open(data), await open(index));
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}
