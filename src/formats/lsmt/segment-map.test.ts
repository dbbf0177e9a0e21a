import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MappingList } from "./mapping-list.ts";
import { replaySegments } from "./merge-segments.ts";
import { SegmentMap } from "./segment-map.ts";
import { SegmentTable, type Segments } from "./segment-table.ts";

function rowsOf({ count, firstSector, sectors, mappedSector, zeroed, tag }: Segments): number[][] {
  return Array.from({ length: count }, (_, i) => [firstSector[i], sectors[i], mappedSector[i], zeroed[i], tag[i]]);
}

function visited(table: SegmentMap | SegmentTable, first: number, end: number): number[][] {
  const rows: number[][] = [];
  table.forRange(first, end, (...row) => rows.push(row));
  return rows;
}

const entry = fc.tuple(fc.nat(4000), fc.integer({ min: 1, max: 300 }), fc.integer({ min: 8, max: 1e9 }), fc.boolean(), fc.nat(1));

test("segments that were put in one after the other are those that a replayed log gives", () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 60 }), fc.nat(4300), fc.nat(4300), (entries, a, b) => {
      const log = new MappingList();
      const map = new SegmentMap();
      for (const each of entries) {
        log.add(...each);
        map.insert(...each);
      }
      const replayed = SegmentTable.from(replaySegments(log));
      assert.deepEqual(rowsOf(map.toTable()), rowsOf(replayed));
      assert.equal(map.count, replayed.count);
      const [first, end] = a < b ? [a, b] : [b, a];
      assert.deepEqual(visited(map, first, end), visited(replayed, first, end));
    }),
    { numRuns: 300 },
  );
});

test("so it is with many more segments than a leaf holds, put in from the front, at random, and covered again", () => {
  const log = new MappingList();
  const map = new SegmentMap();
  const put = (first: number, sectors: number, mapped: number, zeroed: boolean): void => {
    log.add(first, sectors, mapped, zeroed);
    map.insert(first, sectors, mapped, zeroed);
  };
  for (let i = 0; i < 5000; i++) put(i * 8, 5, 8 + i * 8, false);
  let state = 1;
  for (let i = 0; i < 20_000; i++) {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    put(state % 50_000, 1 + (i % 7), 100_000 + i * 8, i % 11 === 0);
    if (i % 4000 === 0) put((state >>> 3) % 30_000, 9000, 8, true);
  }
  assert.deepEqual(rowsOf(map.toTable()), rowsOf(replaySegments(log)));
  put(0, 60_000, 8, false);
  assert.deepEqual(rowsOf(map.toTable()), [[0, 60_000, 8, 0, 0]]);
  assert.equal(map.count, 1);
});
