import type { WritableFile } from "../../bytes/writable-file.ts";
import {
  SECTOR_BYTES,
  encodeRecord,
  FLAG_DATA,
  FLAG_SEALED,
  FLAG_SPARSE,
  MAX_INDEX_ENTRIES,
  SEALED_INDEX_ALIGN_ENTRIES,
  type LsmtRecord,
} from "./layout.ts";
import { coalescedSegments } from "./compaction.ts";
import { encodedIndex } from "./layer-index.ts";
import { LsmtLayer } from "./lsmt-reader.ts";
import type { SegmentMap } from "./segment-map.ts";
import { SegmentTable, type Segments } from "./segment-table.ts";

/**
 * Puts an index and a trailer behind the data of a writable layer. All data must be flushed. Until the trailer is there the file is what
 * it was, so a crash leaves either form.
 */
export async function sealDataFile(data: WritableFile, header: LsmtRecord, map: SegmentMap): Promise<LsmtLayer> {
  const segments = map.toTable();
  const stored: Segments = segments.count > MAX_INDEX_ENTRIES ? coalescedSegments(segments) : segments;
  const index = encodedIndex(stored, SEALED_INDEX_ALIGN_ENTRIES);
  const indexOffset = Math.ceil(data.size / SECTOR_BYTES) * SECTOR_BYTES;
  const record = {
    ...header,
    flags: FLAG_DATA | FLAG_SEALED | (header.flags & FLAG_SPARSE),
    userTag: new Uint8Array(),
    indexOffset,
    indexEntries: stored.count,
  };
  await data.write(indexOffset, index);
  await data.flush();
  await data.write(indexOffset + index.length, encodeRecord(record));
  await data.flush();
  return new LsmtLayer(record, SegmentTable.from(stored), [data]);
}
