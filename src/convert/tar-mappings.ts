import { unsupported } from "../errors.ts";
import { SECTOR_BYTES, TARGET_TAG } from "../formats/lsmt/layout.ts";
import type { MappingList } from "../formats/lsmt/mapping-list.ts";
import type { PayloadPlace } from "../tree/filesystem-writer.ts";
import { quoted } from "../tree/path.ts";
import type { ScannedEntry } from "./entry-log.ts";
import { SECTORS_PER_BLOCK } from "./layer-metadata.ts";

export interface TarMappingOptions {
  readonly mappings: MappingList;
  /** There are layers below, whose data must not show in what is left of a file's last block. */
  readonly hidesBelow: boolean;
  /** What to call the layer in messages. */
  readonly name: string;
}

/**
 * Maps the blocks of files to where the uncompressed archive has their data, instead of to a payload. `places` are ascending by
 * payload block, as are the entries. Throws `UNSUPPORTED` for files whose data does not lie in whole sectors, which only sparse ones
 * can have: a device can only point to sectors.
 */
export function mapToTar(
  entries: Iterable<ScannedEntry>,
  places: readonly PayloadPlace[],
  { mappings, hidesBelow, name }: TarMappingOptions,
): void {
  let next = 0;
  for (const entry of entries) {
    if (entry.runs.length === 0) continue;
    const end = entry.payloadBlock + entry.runs.reduce((sum, run) => sum + run.blocks, 0);
    // Of blocks that the filesystem does not refer to there are no places.
    while (next < places.length && places[next].payloadBlock + places[next].blocks <= entry.payloadBlock) next++;
    if (next === places.length) return;
    if (places[next].payloadBlock >= end) continue;
    const stretches = stretchesOf(entry, name);
    for (let at = next; at < places.length && places[at].payloadBlock < end; at++) {
      mapPlace(places[at], entry.payloadBlock, end, stretches, hidesBelow, mappings);
    }
  }
}

/** Payload of a file that lies in one piece in the archive, in sectors; it may end in the middle of its last. */
interface Stretch {
  /** Of the whole payload. */
  readonly payloadSector: number;
  readonly sectors: number;
  readonly tarSector: number;
}

function stretchesOf(entry: ScannedEntry, name: string): Stretch[] {
  const stretches: Stretch[] = [];
  let { dataOffset } = entry;
  let [run, firstBlock] = [0, entry.payloadBlock];
  for (const { offset, length } of entry.extents) {
    // What follows data within its sector is not the file's, save behind its end, where nobody looks.
    const endsInside = (offset + length) % SECTOR_BYTES !== 0 && offset + length < entry.size;
    if (offset % SECTOR_BYTES !== 0 || dataOffset % SECTOR_BYTES !== 0 || endsInside) {
      throw unsupported(
        `${name}: ${quoted(entry.path)} is a sparse file whose data at ${offset} does not lie in whole sectors of ${SECTOR_BYTES} bytes; ` +
          "convert the image to overlaybd, which copies data",
      );
    }
    const sector = offset / SECTOR_BYTES;
    while (sector >= (entry.runs[run].fileBlock + entry.runs[run].blocks) * SECTORS_PER_BLOCK) firstBlock += entry.runs[run++].blocks;
    const payloadSector = firstBlock * SECTORS_PER_BLOCK + sector - entry.runs[run].fileBlock * SECTORS_PER_BLOCK;
    stretches.push({ payloadSector, sectors: Math.ceil(length / SECTOR_BYTES), tarSector: dataOffset / SECTOR_BYTES });
    dataOffset += length;
  }
  return stretches;
}

/** Maps what of a place belongs to the file with payload blocks from `firstBlock` to `endBlock`. */
function mapPlace(
  place: PayloadPlace,
  firstBlock: number,
  endBlock: number,
  stretches: readonly Stretch[],
  hidesBelow: boolean,
  mappings: MappingList,
): void {
  const start = Math.max(place.payloadBlock, firstBlock) * SECTORS_PER_BLOCK;
  const end = Math.min(place.payloadBlock + place.blocks, endBlock) * SECTORS_PER_BLOCK;
  const shift = (place.block - place.payloadBlock) * SECTORS_PER_BLOCK;
  let at = start;
  for (const { payloadSector, sectors, tarSector } of stretches) {
    const from = Math.max(payloadSector, start);
    const to = Math.min(payloadSector + sectors, end);
    if (from >= to) continue;
    if (from > at && hidesBelow) mappings.add(at + shift, from - at, 0, true);
    mappings.add(from + shift, to - from, tarSector + from - payloadSector, false, TARGET_TAG);
    at = to;
  }
  if (at < end && hidesBelow) mappings.add(at + shift, end - at, 0, true);
}
