import { access } from "node:fs/promises";
import { DiskFile, type FileSource } from "../../bytes/file.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { openUnsynced, readingUnsynced } from "../../device/unsynced-file.ts";
import { AppendLayer } from "../../formats/lsmt/append-layer.ts";
import { openLayer, type LsmtLayer } from "../../formats/lsmt/lsmt-reader.ts";
import { SparseLayer } from "../../formats/lsmt/sparse-layer.ts";
import { openUnsealedLayer, writableFormOf } from "../../formats/lsmt/unsealed-layer.ts";
import { openUnsealedWarpLayer } from "../../formats/lsmt/unsealed-warp-layer.ts";
import type { WritableLayer } from "../../formats/lsmt/writable-layer.ts";
import { WarpUpper } from "../../formats/lsmt/warp-upper.ts";
import { findDataExtents } from "./data-extents.ts";
import { openSource } from "./source-file.ts";

/** Told what is dropped of a layer whose process did not end in good order. */
type Notice = (message: string) => void;

/** What a layer is that is to be committed. */
export type CommitForm = "writable" | "sealed" | "warp";

/** Opens a layer for reading. A sealed one has no index file of its own; a sparse one does without. */
export async function openCommitSource(form: CommitForm, data: string, index: string, notice: Notice): Promise<LsmtLayer> {
  const files: ByteSource[] = [];
  const open = async (path: string): Promise<FileSource> => {
    const file = await openSource(path);
    files.push(file);
    return file;
  };
  try {
    const dataFile = await open(data);
    if (form === "sealed") return await openLayer(dataFile);
    if (form === "writable" && (await writableFormOf(dataFile)) === "sparse") {
      return await openUnsealedLayer(dataFile, undefined, await findDataExtents(data));
    }
    const indexFile = await open(index);
    return await readingUnsynced(index, notice, async (place) =>
      form === "warp"
        ? await openUnsealedWarpLayer(dataFile, indexFile, undefined, place)
        : await openUnsealedLayer(dataFile, indexFile, undefined, place),
    );
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/** Opens a layer with all of its data in one file, to go on writing it. */
export async function openWritable(data: string, index: string, notice: Notice): Promise<WritableLayer> {
  const files: ByteSource[] = [];
  const open = async (path: string): Promise<DiskFile> => {
    const file = await DiskFile.open(path);
    files.push(file);
    return file;
  };
  try {
    const dataFile = await open(data);
    if ((await writableFormOf(dataFile)) === "sparse") return await SparseLayer.open(dataFile, await findDataExtents(data));
    const indexFile = await open(index);
    const place = await openUnsynced(index, notice);
    if (place !== undefined) files.push(place.file);
    return await AppendLayer.open(dataFile, indexFile, place);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/** Opens the files of a turboOCI layer, to go on writing it. `target` is the tar that it refers to; nothing is read of it. */
export async function openWarpUpper(data: string, index: string, target: string, notice: Notice): Promise<WarpUpper> {
  const files: ByteSource[] = [];
  const open = async (path: string): Promise<DiskFile> => {
    const file = await DiskFile.open(path);
    files.push(file);
    return file;
  };
  try {
    await access(target);
    const [dataFile, indexFile] = [await open(data), await open(index)];
    const place = await openUnsynced(index, notice);
    if (place !== undefined) files.push(place.file);
    return await WarpUpper.open(dataFile, indexFile, undefined, place);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}
