import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { HOLE, ZEROS, type SegmentTable } from "../formats/lsmt/segment-table.ts";

/** A stretch of a device that is all data, or all zeros that nothing is stored for. */
export interface DeviceExtent {
  readonly bytes: number;
  readonly isHole: boolean;
}

/** The stretches of a range of a device: what the uppermost of the layers that knows of it holds there, or a hole. */
export function extentsOf(layers: readonly Pick<SegmentTable, "forRange">[], offset: number, length: number): DeviceExtent[] {
  const extents: DeviceExtent[] = [];
  const end = offset + length;
  const visit = (firstSector: number, endSector: number, level: number): void => {
    layers[level].forRange(firstSector, endSector, (first, sectors, mappedSector, tag) => {
      if (tag === HOLE && level + 1 < layers.length) return visit(first, first + sectors, level + 1);
      const start = Math.max(first * SECTOR_BYTES, offset);
      extents.push({ bytes: Math.min((first + sectors) * SECTOR_BYTES, end) - start, isHole: mappedSector === ZEROS });
    });
  };
  visit(Math.floor(offset / SECTOR_BYTES), Math.ceil(end / SECTOR_BYTES), 0);
  return extents;
}
