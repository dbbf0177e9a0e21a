import type { ByteSource } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";
import { readIndexFile, withUnsynced, type StoredIndex } from "./index-log.ts";
import { LSMT_RECORD_BYTES, METADATA_TAG, SECTOR_BYTES, TARGET_TAG } from "./layout.ts";
import { LsmtLayer } from "./lsmt-reader.ts";
import type { MappingList } from "./mapping-list.ts";
import { replaySegments } from "./merge-segments.ts";
import { SegmentTable } from "./segment-table.ts";
import type { UnsyncedPlace } from "./unsynced-log.ts";
import { wholeSectors } from "./warp-layer.ts";

/**
 * Opens a warp layer that is being written for reading; to commit it, no `target` is needed. Closing the layer closes the sources, but
 * for what is in `place`.
 */
export async function openUnsealedWarpLayer(
  metadata: ByteSource,
  index: ByteSource,
  target?: ByteSource,
  place?: UnsyncedPlace<ByteSource>,
): Promise<LsmtLayer> {
  const { header, log } = await readWarpFiles(metadata, index, target, place);
  return new LsmtLayer(header, SegmentTable.from(replaySegments(log)), targetFiles(metadata, target), index);
}

/** The index of a warp layer that is being written; the entries' tags are those of `targetFiles`. */
export async function readWarpFiles(
  metadata: ByteSource,
  index: ByteSource,
  target: ByteSource | undefined,
  place: UnsyncedPlace<ByteSource> | undefined,
): Promise<StoredIndex & { readonly firstTag: number }> {
  const stored = await readIndexFile(index);
  const where = `${index.name}: lsmt index at ${LSMT_RECORD_BYTES}`;
  const firstTag = rebaseTags(stored.log, where);
  const targetSectors = target === undefined ? Infinity : Math.ceil(target.size / SECTOR_BYTES);
  const metadataSectors = Math.floor(metadata.size / SECTOR_BYTES);
  const check = (i: number): void => {
    const { firstSector, sectors, mappedSector, zeroed, tag } = stored.log;
    const end = mappedSector[i] + (zeroed[i] === 1 ? 0 : sectors[i]);
    const limit = tag[i] === TARGET_TAG ? targetSectors : metadataSectors;
    if (sectors[i] === 0 || tag[i] > TARGET_TAG || (zeroed[i] === 0 && end > limit)) {
      throw corrupt(
        `${where}: segment ${i} (sectors ${firstSector[i]} + ${sectors[i]}) maps to [${mappedSector[i]}, ${end}) of ` +
          `the ${tag[i] === TARGET_TAG ? "target" : "metadata"}, which has ${limit} sectors`,
      );
    }
  };
  for (let i = 0; i < stored.log.count; i++) check(i);
  const all = await withUnsynced(index, stored, place, (i) => {
    stored.log.tag[i] -= firstTag;
    check(i);
  });
  return { ...all, firstTag };
}

/** The files of a warp layer, by tag. */
export function targetFiles<S extends ByteSource>(metadata: S, target: ByteSource | undefined): ByteSource[] {
  return target === undefined ? [metadata] : [metadata, wholeSectors(target)];
}

/**
 * A layer that was written on top of others counts its two files after theirs. Metadata lies where it belongs, so with one tag alone its
 * entries tell whose it is. Answers what the tag of the metadata was.
 */
function rebaseTags(log: MappingList, where: string): number {
  const { count, firstSector, mappedSector, zeroed, tag } = log;
  let low = Infinity;
  let high = 0;
  let inPlace = true;
  for (let i = 0; i < count; i++) {
    low = Math.min(low, tag[i]);
    high = Math.max(high, tag[i]);
    if (zeroed[i] === 0 && mappedSector[i] !== firstSector[i]) inPlace = false;
  }
  if (high - low > TARGET_TAG) {
    throw corrupt(`${where}: segments have tags from ${low} to ${high}, expected two that follow each other: a warp layer has two files`);
  }
  if (low === high && low > METADATA_TAG && !inPlace) low -= TARGET_TAG;
  if (count === 0) return METADATA_TAG;
  for (let i = 0; i < count; i++) tag[i] -= low;
  return low;
}
