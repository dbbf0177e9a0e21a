import { FIRST_DATA_SECTOR, MAX_MAPPING_SECTORS } from "./layout.ts";
import { MappingList } from "./mapping-list.ts";
import type { Segments } from "./segment-table.ts";

/** Data is copied in steps of 32 KiB, each an entry of its own at first: where runs end depends on it. */
const STEP_SECTORS = 64;

/**
 * The index of a layer that has the data of `segments` in their order, from the first sector behind the header on, as existing tools
 * arrange it: equal input gives equal bytes. `tagOf` gives the tag on disk of a segment's tag; entries whose tag on disk is `keptTag`
 * keep their place, because their data is elsewhere.
 */
export function compactedSegments(segments: Segments, tagOf: (tag: number) => number, keptTag?: number): MappingList {
  const joined = new JoinedMappings();
  let output = FIRST_DATA_SECTOR;
  for (let i = 0; i < segments.count; i++) {
    const first = segments.firstSector[i];
    const sectors = segments.sectors[i];
    const tag = tagOf(segments.tag[i]);
    if (segments.zeroed[i] === 1) joined.add(first, sectors, output, true, tag);
    else if (tag === keptTag) joined.add(first, sectors, segments.mappedSector[i], false, tag);
    else {
      for (let at = 0; at < sectors; at += STEP_SECTORS) {
        const step = Math.min(STEP_SECTORS, sectors - at);
        joined.add(first + at, step, output, false, tag);
        output += step;
      }
    }
  }
  return joined.close();
}

/** The same segments in as few entries as the format allows. */
export function coalescedSegments(segments: Segments): MappingList {
  const joined = new JoinedMappings();
  for (let i = 0; i < segments.count; i++) {
    joined.add(segments.firstSector[i], segments.sectors[i], segments.mappedSector[i], segments.zeroed[i] === 1, segments.tag[i]);
  }
  return joined.close();
}

/** Joins mappings that go on where the last one ends, on the device and in the file. */
class JoinedMappings {
  readonly #list = new MappingList();
  #first = 0;
  #sectors = 0;
  #mapped = 0;
  #zeroed = false;
  #tag = 0;

  add(firstSector: number, sectors: number, mappedSector: number, zeroed: boolean, tag: number): void {
    const goesOn =
      this.#first + this.#sectors === firstSector &&
      this.#mapped + (this.#zeroed ? 0 : this.#sectors) === mappedSector &&
      this.#zeroed === zeroed &&
      this.#tag === tag;
    // An entry could be one sector longer, but other writers stop here.
    if (goesOn && this.#sectors > 0 && this.#sectors + sectors < MAX_MAPPING_SECTORS) {
      this.#sectors += sectors;
      return;
    }
    this.#put();
    this.#first = firstSector;
    this.#sectors = sectors;
    this.#mapped = mappedSector;
    this.#zeroed = zeroed;
    this.#tag = tag;
  }

  close(): MappingList {
    this.#put();
    return this.#list;
  }

  #put(): void {
    if (this.#sectors > 0) this.#list.add(this.#first, this.#sectors, this.#mapped, this.#zeroed, this.#tag);
  }
}
