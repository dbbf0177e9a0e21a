import type { ByteSink } from "../../bytes/sink.ts";
import { LazyError } from "../../errors.ts";
import { identityOf, type LayerIdentity, type LsmtOptions } from "./layer-identity.ts";
import { encodedIndex, tooManyMappings } from "./layer-index.ts";
import {
  encodeRecord,
  FIRST_DATA_SECTOR,
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  INDEX_ALIGN_ENTRIES,
  LSMT_RECORD_BYTES,
  MAPPING_BYTES,
  MAX_INDEX_ENTRIES,
  MAX_MAPPING_SECTORS,
  METADATA_TAG,
  SECTOR_BYTES,
  TARGET_TAG,
} from "./layout.ts";
import { MappingList } from "./mapping-list.ts";

export interface LsmtSummary {
  /** Bytes written to the sink. */
  readonly bytes: number;
  /** Index entries that map something. */
  readonly segments: number;
}

/**
 * Writes a committed layer front to back: header, data, index, trailer. Where data belongs on the device is told last.
 * The sink stays open. Calls must not overlap; after an error the writer is unusable.
 */
export class LsmtWriter {
  readonly #sink: Pick<ByteSink, "write">;
  readonly #identity: LayerIdentity;
  #sector = FIRST_DATA_SECTOR;
  #headerWritten = false;
  /** A call that fails never makes the writer ready again. */
  #state: "ready" | "writing" | "closed" = "ready";

  constructor(sink: Pick<ByteSink, "write">, options: LsmtOptions) {
    this.#sink = sink;
    this.#identity = identityOf(options, "lsmt writer");
  }

  /** Appends data (whole sectors); returns the sector of the layer's file that holds its first byte. */
  async append(bytes: Uint8Array): Promise<number> {
    return await this.appendThrough(bytes.length, async () => await this.#sink.write(bytes));
  }

  /** Like `append`, for data that `put` brings to the sink by a way of its own. */
  async appendThrough(bytes: number, put: () => Promise<void>): Promise<number> {
    if (bytes % SECTOR_BYTES !== 0)
      throw new LazyError("USAGE", `lsmt writer: append of ${bytes} bytes, expected a multiple of ${SECTOR_BYTES}`);
    this.#begin("append");
    const sector = this.#sector;
    this.#sector += bytes / SECTOR_BYTES;
    await this.#writeHeader();
    await put();
    this.#state = "ready";
    return sector;
  }

  /** Writes the index and the trailer. The mappings come in any order, must not overlap, and have no tags. */
  async close(mappings: MappingList): Promise<LsmtSummary> {
    return await this.#close(mappings, undefined);
  }

  /**
   * Ends a warp layer: mappings with the tag `TARGET_TAG` are found in the target, a file of `targetBytes` that is not part of the
   * layer; those without, in what was appended. A layer with the former needs some of the latter too.
   */
  async closeWarp(mappings: MappingList, targetBytes: number): Promise<LsmtSummary> {
    return await this.#close(mappings, Math.ceil(targetBytes / SECTOR_BYTES));
  }

  async #close(mappings: MappingList, targetSectors: number | undefined): Promise<LsmtSummary> {
    this.#begin("close");
    await this.#writeHeader();
    const sorted = sortedMappings(mappings);
    checkMappings(sorted, { dataEnd: this.#sector, targetSectors, deviceSectors: this.#identity.virtualSize / SECTOR_BYTES });
    const joined = joinedMappings(sorted);
    const index = encodedIndex(joined, targetSectors === undefined ? INDEX_ALIGN_ENTRIES : 1);
    await this.#sink.write(index);
    const indexOffset = this.#sector * SECTOR_BYTES;
    await this.#sink.write(this.#record(FLAG_DATA | FLAG_SEALED, indexOffset, index.length / MAPPING_BYTES));
    this.#state = "closed";
    return { bytes: indexOffset + index.length + LSMT_RECORD_BYTES, segments: joined.count };
  }

  #begin(call: string): void {
    if (this.#state !== "ready") {
      const why = this.#state === "closed" ? "it is closed" : "another call is underway or has failed";
      throw new LazyError("USAGE", `lsmt writer: cannot ${call}: ${why}`);
    }
    this.#state = "writing";
  }

  async #writeHeader(): Promise<void> {
    if (this.#headerWritten) return;
    this.#headerWritten = true;
    await this.#sink.write(this.#record(FLAG_HEADER | FLAG_DATA | FLAG_SEALED, 0, 0));
  }

  #record(flags: number, indexOffset: number, indexEntries: number): Uint8Array {
    return encodeRecord({ ...this.#identity, flags, indexOffset, indexEntries });
  }
}

/** The mappings by place on the device. The data of zeroed ones gets one place, so that neighbours join. */
function sortedMappings(mappings: MappingList): MappingList {
  const order = new Uint32Array(mappings.count);
  for (let i = 0; i < order.length; i++) order[i] = i;
  const { firstSector } = mappings;
  order.sort((a, b) => firstSector[a] - firstSector[b]);
  const sorted = new MappingList();
  for (const i of order) {
    const zeroed = mappings.zeroed[i] === 1;
    const mapped = zeroed ? FIRST_DATA_SECTOR : mappings.mappedSector[i];
    sorted.add(firstSector[i], mappings.sectors[i], mapped, zeroed, zeroed ? METADATA_TAG : mappings.tag[i]);
  }
  return sorted;
}

/** What mappings may point to, in sectors. */
interface MappingBounds {
  /** Where the data of the layer's own file ends. */
  readonly dataEnd: number;
  /** Size of a warp layer's target. */
  readonly targetSectors: number | undefined;
  readonly deviceSectors: number;
}

function checkMappings(sorted: MappingList, { dataEnd, targetSectors, deviceSectors }: MappingBounds): void {
  const { firstSector, sectors, mappedSector, zeroed, tag } = sorted;
  let settled = 0;
  let lowestTag = Infinity;
  for (let i = 0; i < sorted.count; i++) {
    const first = firstSector[i];
    const count = sectors[i];
    const what = `lsmt writer: mapping of sectors ${first} + ${count}`;
    if (!Number.isSafeInteger(first) || !Number.isSafeInteger(count) || first < 0 || count < 1 || first + count > deviceSectors) {
      throw new LazyError("USAGE", `${what} is outside of the device of ${deviceSectors} sectors`);
    }
    if (first < settled) throw new LazyError("USAGE", `${what} overlaps the one before it, which ends at ${settled}`);
    settled = first + count;
    if (tag[i] > (targetSectors === undefined ? METADATA_TAG : TARGET_TAG)) {
      throw new LazyError("USAGE", `${what} has tag ${tag[i]}, which the layer has no file for`);
    }
    lowestTag = Math.min(lowestTag, tag[i]);
    const mapped = mappedSector[i];
    const [start, end] = tag[i] === TARGET_TAG ? [0, targetSectors ?? 0] : [FIRST_DATA_SECTOR, dataEnd];
    if (zeroed[i] === 0 && !(Number.isSafeInteger(mapped) && mapped >= start && mapped + count <= end)) {
      throw new LazyError("USAGE", `${what} maps to sector ${mapped}, the data lies in [${start}, ${end})`);
    }
  }
  // Readers take the lowest tag that there is for the metadata's.
  if (lowestTag === TARGET_TAG)
    throw new LazyError("USAGE", "lsmt writer: a warp layer maps nothing but its target, expected metadata too");
}

/** Joins neighbours that are contiguous on the device and in the data, and splits what is too long for an entry. */
function joinedMappings(sorted: MappingList): MappingList {
  const { firstSector, sectors, mappedSector, zeroed, tag } = sorted;
  const joined = new MappingList();
  for (let i = 0; i < sorted.count;) {
    const first = firstSector[i];
    const mapped = mappedSector[i];
    const isZeroed = zeroed[i] === 1;
    const file = tag[i];
    let count = sectors[i++];
    while (
      i < sorted.count &&
      firstSector[i] === first + count &&
      (zeroed[i] === 1) === isZeroed &&
      tag[i] === file &&
      (isZeroed || mappedSector[i] === mapped + count)
    ) {
      count += sectors[i++];
    }
    if (joined.count + Math.ceil(count / MAX_MAPPING_SECTORS) > MAX_INDEX_ENTRIES) throw tooManyMappings();
    for (let at = 0; at < count; at += MAX_MAPPING_SECTORS) {
      joined.add(first + at, Math.min(MAX_MAPPING_SECTORS, count - at), isZeroed ? mapped : mapped + at, isZeroed, file);
    }
  }
  return joined;
}
