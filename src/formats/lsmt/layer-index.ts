import { type LazyError, unsupported } from "../../errors.ts";
import { encodeMapping, INVALID_FIRST_SECTOR, MAPPING_BYTES, MAX_INDEX_ENTRIES } from "./layout.ts";
import type { Segments } from "./segment-table.ts";

export function tooManyMappings(): LazyError {
  return unsupported(
    `lsmt: the layer needs more than ${MAX_INDEX_ENTRIES} index entries (padding included), which readers refuse: ` +
      "write data in the order of its place on the device, or split the layer",
  );
}

/** The index, filled up with invalid entries to a multiple of `alignEntries`. */
export function encodedIndex(mappings: Segments, alignEntries: number): Uint8Array {
  const entries = Math.ceil(mappings.count / alignEntries) * alignEntries;
  if (entries > MAX_INDEX_ENTRIES) throw tooManyMappings();
  const index = new Uint8Array(entries * MAPPING_BYTES);
  const view = new DataView(index.buffer);
  const { count, firstSector, sectors, mappedSector, zeroed, tag } = mappings;
  for (let i = 0; i < count; i++) {
    encodeMapping(view, i * MAPPING_BYTES, firstSector[i], sectors[i], mappedSector[i], zeroed[i] === 1, tag[i]);
  }
  for (let i = count; i < entries; i++) encodeMapping(view, i * MAPPING_BYTES, INVALID_FIRST_SECTOR, 0, 0, false);
  return index;
}
