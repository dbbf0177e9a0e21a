import { checkRange, type ByteSource } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";
import { FIRST_DATA_SECTOR, METADATA_TAG, SECTOR_BYTES, TARGET_TAG, type LsmtRecord } from "./layout.ts";
import { checkMapping, dataSectionOf, LsmtLayer, readSealedFile } from "./lsmt-reader.ts";
import type { MappingList } from "./mapping-list.ts";
import { SegmentTable, type Segments } from "./segment-table.ts";

/**
 * Opens a warp layer: one whose file holds a filesystem's metadata, while the data of its files is in `target`, the tar that it was
 * made from. Closing the layer closes both; when opening fails, they stay open.
 * Throws `CORRUPT` where the file contradicts the format, itself or the target's size. See docs/formats/lsmt.md.
 */
export async function openWarpLayer(source: ByteSource, target: ByteSource): Promise<LsmtLayer> {
  const { trailer, mappings } = await readSealedFile(source, 0);
  rebaseTags(mappings, trailer, source.name);
  const { where, endSector } = dataSectionOf(source.name, trailer);
  for (let i = 0; i < mappings.count; i++) {
    if (mappings.tag[i] === TARGET_TAG) checkTargetMapping(mappings, i, target, where);
    else checkMapping(mappings, i, endSector, where);
  }
  return new LsmtLayer(trailer, SegmentTable.from(mappings), [source, wholeSectors(target)]);
}

/**
 * A layer that was written on top of others may count its two files from another number than 0: the lower tag is that of its own
 * file. With a tag alone, that would take data for metadata where a layer has no metadata, so what the file holds decides: 0 is
 * never a target's, and all of the file's data belongs to some segment.
 */
function rebaseTags(mappings: MappingList, trailer: LsmtRecord, name: string): void {
  const { count, tag } = mappings;
  let low = Infinity;
  let high = 0;
  for (let i = 0; i < count; i++) {
    low = Math.min(low, tag[i]);
    high = Math.max(high, tag[i]);
  }
  const { where, endSector } = dataSectionOf(name, trailer);
  if (high - low > TARGET_TAG) {
    throw corrupt(`${where}: segments have tags from ${low} to ${high}, expected two that follow each other: a warp layer has two files`);
  }
  if (low === high && low > METADATA_TAG) {
    const held = endSector - FIRST_DATA_SECTOR;
    const mapped = mappedSectors(mappings);
    if (mapped !== held && held !== 0) {
      throw corrupt(`${where}: segments of tag ${low} map ${mapped} sectors, the layer holds ${held}: they are neither metadata nor data`);
    }
    if (mapped !== held) low -= TARGET_TAG;
  }
  for (let i = 0; i < count; i++) tag[i] -= low;
}

function mappedSectors({ count, sectors, zeroed }: Segments): number {
  let mapped = 0;
  for (let i = 0; i < count; i++) if (zeroed[i] === 0) mapped += sectors[i];
  return mapped;
}

function checkTargetMapping({ firstSector, sectors, mappedSector, zeroed }: Segments, i: number, target: ByteSource, where: string): void {
  const end = mappedSector[i] + (zeroed[i] ? 0 : sectors[i]);
  const targetSectors = Math.ceil(target.size / SECTOR_BYTES);
  if (sectors[i] === 0 || (end > targetSectors && !zeroed[i])) {
    throw corrupt(
      `${where}: segment ${i} (sectors ${firstSector[i]} + ${sectors[i]}) maps to [${mappedSector[i]}, ${end}) of ${target.name}, ` +
        `which has ${targetSectors} sectors`,
    );
  }
}

/** The target filled up with zeros to whole sectors. */
export function wholeSectors(target: ByteSource): ByteSource {
  return target.size % SECTOR_BYTES === 0 ? target : new WholeSectors(target);
}

/** A source filled up with zeros to whole sectors: a tar may end with the last byte of a file. */
class WholeSectors implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;

  constructor(source: ByteSource) {
    this.name = source.name;
    this.size = Math.ceil(source.size / SECTOR_BYTES) * SECTOR_BYTES;
    this.#source = source;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const held = Math.min(length, Math.max(0, this.#source.size - offset));
    if (held === length) return await this.#source.read(offset, length);
    const filled = Buffer.alloc(length);
    if (held > 0) filled.set(await this.#source.read(offset, held));
    return filled;
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}
