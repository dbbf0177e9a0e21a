import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import { SegmentTable } from "../formats/lsmt/segment-table.ts";
import { extentsOf } from "./device-extents.ts";

const DEVICE_SECTORS = 40;

interface Piece {
  readonly gap: number;
  readonly sectors: number;
  readonly zeroed: boolean;
}

/** A layer, and what it makes of a device: for each sector whether it is a hole. */
function layerOf(pieces: readonly Piece[], isHole: boolean[]): SegmentTable {
  const list = new MappingList();
  let sector = 0;
  for (const { gap, sectors, zeroed } of pieces) {
    if (sector + gap + sectors > DEVICE_SECTORS) break;
    list.add(sector + gap, sectors, 8 + sector, zeroed, 0);
    isHole.fill(zeroed, sector + gap, sector + gap + sectors);
    sector += gap + sectors;
  }
  return SegmentTable.from(list);
}

test("the extents of any range are what the uppermost layer that knows of it says, without gaps", () => {
  const piece = fc.record({ gap: fc.nat(3), sectors: fc.integer({ min: 1, max: 4 }), zeroed: fc.boolean() });
  const layers = fc.array(fc.array(piece, { maxLength: 8 }), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(layers, fc.nat(DEVICE_SECTORS * SECTOR_BYTES - 1), fc.nat(), (lowestFirst, offset, choice) => {
      const isHole = Array.from({ length: DEVICE_SECTORS }, () => true);
      const tables = lowestFirst.map((pieces) => layerOf(pieces, isHole)).toReversed();
      const length = 1 + (choice % (DEVICE_SECTORS * SECTOR_BYTES - offset));
      let at = offset;
      for (const extent of extentsOf(tables, offset, length)) {
        assert.ok(extent.bytes > 0);
        for (let sector = Math.floor(at / SECTOR_BYTES); sector * SECTOR_BYTES < at + extent.bytes; sector++) {
          assert.equal(extent.isHole, isHole[sector]);
        }
        at += extent.bytes;
      }
      assert.equal(at, offset + length);
    }),
    { numRuns: 500 },
  );
});
