import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, LazyError, unsupported } from "../../errors.ts";
import {
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  FLAG_SPARSE,
  LSMT_RECORD_BYTES,
  MAPPING_BYTES,
  MAX_MAPPING_SECTORS,
  MAX_TABLE_SEGMENTS,
  SECTOR_BYTES,
  type LsmtRecord,
} from "./layout.ts";
import { checkLsmtRecord, checkMapping, LsmtLayer, parseMappings } from "./lsmt-reader.ts";
import { MappingList } from "./mapping-list.ts";
import { replaySegments } from "./merge-segments.ts";
import { SegmentTable } from "./segment-table.ts";

/** A stretch of a sparse file that its filesystem holds data for; in bytes. */
export interface FileExtent {
  readonly offset: number;
  readonly length: number;
}

/** The index of a writable layer is read in pieces of this size. */
const INDEX_READ_BYTES = 1 << 20;

/**
 * Opens a layer that is still being written, as it is on disk.
 *
 * An append-only layer needs its `index`, whose mappings are replayed in order. A sparse layer has no index: what is mapped
 * is where its file has data, so the caller looks that up (SEEK_DATA, SEEK_HOLE) and gives it as `dataExtents`, ascending.
 * Closing the layer closes the sources.
 */
export async function openWritableLayer(
  data: ByteSource,
  index: ByteSource | undefined,
  dataExtents?: readonly FileExtent[],
): Promise<LsmtLayer> {
  const header = await readHeader(data, FLAG_HEADER | FLAG_DATA, "data file");
  if (header.flags & FLAG_SEALED) throw corrupt(`${data.name}: lsmt layer is sealed: open it as a finished layer`);
  if (header.flags & FLAG_SPARSE) {
    if (!dataExtents) throw new LazyError("USAGE", `${data.name}: lsmt layer is sparse: its data extents are needed to open it`);
    return new LsmtLayer(header, sparseSegments(data, header, dataExtents), [data], index);
  }
  if (!index) throw new LazyError("USAGE", `${data.name}: lsmt layer is append-only: its index file is needed to open it`);
  const indexHeader = await readHeader(index, FLAG_HEADER, "index file");
  if (indexHeader.flags & FLAG_SEALED) throw corrupt(`${index.name}: lsmt index file is sealed, expected one of a writable layer`);
  if (indexHeader.indexOffset !== LSMT_RECORD_BYTES) {
    throw corrupt(`${index.name}: lsmt index begins at ${indexHeader.indexOffset}, expected ${LSMT_RECORD_BYTES}`);
  }
  if (indexHeader.uuid !== header.uuid) {
    throw corrupt(`${index.name}: lsmt index belongs to layer ${indexHeader.uuid}, the data of ${data.name} to ${header.uuid}`);
  }
  return new LsmtLayer(indexHeader, await replayedSegments(data, index), [data], index);
}

async function readHeader(source: ByteSource, kind: number, what: string): Promise<LsmtRecord> {
  if (source.size < LSMT_RECORD_BYTES)
    throw corrupt(`${source.name}: lsmt ${what} of ${source.size} bytes, expected ${LSMT_RECORD_BYTES} at least`);
  return checkLsmtRecord(await source.read(0, LSMT_RECORD_BYTES), `${source.name}: lsmt header at 0`, kind);
}

async function replayedSegments(data: ByteSource, index: ByteSource): Promise<SegmentTable> {
  const entries = Math.floor((index.size - LSMT_RECORD_BYTES) / MAPPING_BYTES);
  if (entries > MAX_TABLE_SEGMENTS)
    throw unsupported(`${index.name}: lsmt index has ${entries} entries, expected at most ${MAX_TABLE_SEGMENTS}`);
  const end = LSMT_RECORD_BYTES + entries * MAPPING_BYTES;
  const log = new MappingList();
  for (let at = LSMT_RECORD_BYTES; at < end; at += INDEX_READ_BYTES) {
    parseMappings(await index.read(at, Math.min(INDEX_READ_BYTES, end - at)), log);
  }
  const dataSectors = Math.floor(data.size / SECTOR_BYTES);
  for (let i = 0; i < log.count; i++) checkMapping(log, i, dataSectors, `${index.name}: lsmt index at ${LSMT_RECORD_BYTES}`);
  log.tag.fill(0);
  return SegmentTable.from(replaySegments(log));
}

/** In a sparse layer byte `x` of the device is byte `x + 4096` of the file. */
function sparseSegments(data: ByteSource, header: LsmtRecord, extents: readonly FileExtent[]): SegmentTable {
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
  return SegmentTable.from(mappings);
}
