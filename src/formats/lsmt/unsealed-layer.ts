import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, LazyError } from "../../errors.ts";
import { readHeader, readIndexFile, withUnsynced, type StoredIndex } from "./index-log.ts";
import {
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  FLAG_SPARSE,
  LSMT_RECORD_BYTES,
  MAX_MAPPING_SECTORS,
  SECTOR_BYTES,
  type LsmtRecord,
} from "./layout.ts";
import { checkMapping, LsmtLayer } from "./lsmt-reader.ts";
import { MappingList } from "./mapping-list.ts";
import { replaySegments } from "./merge-segments.ts";
import { SegmentTable } from "./segment-table.ts";
import type { UnsyncedPlace } from "./unsynced-log.ts";

/** A stretch of a sparse file that its filesystem holds data for; in bytes. */
export interface FileExtent {
  readonly offset: number;
  readonly length: number;
}

/** The two forms of a writable layer that have all of their data in one file. */
export type WritableForm = "append" | "sparse";

/** Which form the data file of a writable layer has. Throws `CORRUPT` for what is none. */
export async function writableFormOf(data: ByteSource): Promise<WritableForm> {
  return (await readDataHeader(data)).flags & FLAG_SPARSE ? "sparse" : "append";
}

/**
 * Opens a layer that is being written for reading, as it is on disk; to commit it, for example.
 *
 * An append-only layer needs its `index`, whose mappings are replayed in order, and those in `place` that are not flushed. A sparse
 * layer has no index: what is mapped is where its file has data, so the caller looks that up (SEEK_DATA, SEEK_HOLE) and gives it as
 * `dataExtents`, ascending. Closing the layer closes data and index.
 */
export async function openUnsealedLayer(
  data: ByteSource,
  index: ByteSource | undefined,
  dataExtents?: readonly FileExtent[],
  place?: UnsyncedPlace<ByteSource>,
): Promise<LsmtLayer> {
  if ((await writableFormOf(data)) === "sparse") {
    if (!dataExtents) throw new LazyError("USAGE", `${data.name}: lsmt layer is sparse: its data extents are needed to open it`);
    const { header, mappings } = await readSparseFile(data, dataExtents);
    return new LsmtLayer(header, SegmentTable.from(mappings), [data], index);
  }
  if (!index) throw new LazyError("USAGE", `${data.name}: lsmt layer is append-only: its index file is needed to open it`);
  const { stored } = await readAppendFiles(data, index, place);
  return new LsmtLayer(stored.header, SegmentTable.from(replaySegments(stored.log)), [data], index);
}

/** The files of an append-only layer; the entries' tags are 0. */
export async function readAppendFiles(
  data: ByteSource,
  index: ByteSource,
  place?: UnsyncedPlace<ByteSource>,
): Promise<{ header: LsmtRecord; stored: StoredIndex }> {
  const header = await readDataHeader(data);
  if (header.flags & FLAG_SPARSE) throw new LazyError("USAGE", `${data.name}: lsmt layer is sparse, expected an append-only one`);
  const stored = await readIndexFile(index);
  if (stored.header.uuid !== header.uuid) {
    throw corrupt(`${index.name}: lsmt index belongs to layer ${stored.header.uuid}, the data of ${data.name} to ${header.uuid}`);
  }
  const { log } = stored;
  const dataSectors = Math.floor(data.size / SECTOR_BYTES);
  const check = (i: number): void => checkMapping(log, i, dataSectors, `${index.name}: lsmt index at ${LSMT_RECORD_BYTES}`);
  for (let i = 0; i < log.count; i++) check(i);
  const all = await withUnsynced(index, stored, place, check);
  log.tag.fill(0);
  return { header, stored: all };
}

/** The file of a sparse layer: byte `x` of the device is byte `x + 4096` of the file. */
export async function readSparseFile(
  data: ByteSource,
  extents: readonly FileExtent[],
): Promise<{ header: LsmtRecord; mappings: MappingList }> {
  const header = await readDataHeader(data);
  if (!(header.flags & FLAG_SPARSE)) throw new LazyError("USAGE", `${data.name}: lsmt layer is append-only, expected a sparse one`);
  const end = LSMT_RECORD_BYTES + header.virtualSize;
  if (data.size < end) throw corrupt(`${data.name}: sparse lsmt layer of ${data.size} bytes, expected ${end} at least`);
  const mappings = new MappingList();
  const headerSectors = LSMT_RECORD_BYTES / SECTOR_BYTES;
  let settled = headerSectors;
  for (const extent of extents) {
    const stop = Math.ceil(Math.min(extent.offset + extent.length, end) / SECTOR_BYTES);
    let at = Math.max(Math.floor(extent.offset / SECTOR_BYTES), settled);
    for (; at < stop; at += MAX_MAPPING_SECTORS) {
      mappings.add(at - headerSectors, Math.min(MAX_MAPPING_SECTORS, stop - at), at);
    }
    settled = Math.max(settled, stop);
  }
  return { header, mappings };
}

async function readDataHeader(data: ByteSource): Promise<LsmtRecord> {
  const header = await readHeader(data, FLAG_HEADER | FLAG_DATA, "data file");
  if (header.flags & FLAG_SEALED) throw corrupt(`${data.name}: lsmt layer is sealed: open it as a finished layer`);
  return header;
}
