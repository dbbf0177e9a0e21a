import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MappingList } from "./mapping-list.ts";
import { mergeSegments, replaySegments } from "./merge-segments.ts";
import { HOLE, SegmentTable, ZEROS, type Segments } from "./segment-table.ts";

type Row = [firstSector: number, sectors: number, mappedSector: number, zeroed?: boolean];

function listOf(rows: readonly Row[]): MappingList {
  const list = new MappingList();
  for (const [firstSector, sectors, mappedSector, zeroed] of rows) list.add(firstSector, sectors, mappedSector, zeroed);
  return list;
}

function rowsOf(segments: Segments): number[][] {
  return Array.from({ length: segments.count }, (_, i) => [segments.firstSector[i], segments.sectors[i], segments.mappedSector[i]]);
}

function visited(table: SegmentTable, first: number, end: number): number[][] {
  const rows: number[][] = [];
  table.forRange(first, end, (...row) => rows.push(row));
  return rows;
}

const lookupTable = SegmentTable.from(
  listOf([
    [0, 10, 0],
    [10, 10, 50],
    [100, 10, 20],
  ]),
);

test("a look-up trims the first and the last segment and shows holes", () => {
  const data = (first: number, end: number) =>
    visited(lookupTable, first, end)
      .filter(([, , , tag]) => tag !== HOLE)
      .map((row) => row.slice(0, 3));
  assert.deepEqual(data(5, 15), [
    [5, 5, 5],
    [10, 5, 50],
  ]);
  assert.deepEqual(data(16, 26), [[16, 4, 56]]);
  assert.deepEqual(data(26, 36), []);
  assert.deepEqual(data(6, 106), [
    [6, 4, 6],
    [10, 10, 50],
    [100, 6, 20],
  ]);
  assert.deepEqual(visited(lookupTable, 18, 103), [
    [18, 2, 58, 0],
    [20, 80, ZEROS, HOLE],
    [100, 3, 20, 0],
  ]);
  assert.deepEqual(visited(lookupTable, 109, 200), [
    [109, 1, 29, 0],
    [110, 90, ZEROS, HOLE],
  ]);
  assert.deepEqual(visited(lookupTable, 300, 310), [[300, 10, ZEROS, HOLE]]);
  assert.deepEqual(visited(lookupTable, 5, 5), []);
});

test("find gives the segment that holds a sector, or the next one", () => {
  assert.deepEqual(
    [0, 9, 10, 19, 20, 99, 100, 109, 110].map((sector) => lookupTable.find(sector)),
    [0, 0, 1, 1, 2, 2, 2, 2, 3],
  );
});

test("a table over the same shared memory is the same table", () => {
  const other = new SegmentTable(lookupTable.shared, lookupTable.count);
  assert.deepEqual(rowsOf(other), rowsOf(lookupTable));
});

test("mappings that overlap earlier ones split and trim them", () => {
  const log = listOf([
    [0, 20, 0],
    [10, 15, 50],
    [30, 100, 20],
    [5, 10, 3],
    [40, 10, 123],
    [200, 10, 2133],
    [150, 100, 21],
  ]);
  assert.deepEqual(rowsOf(replaySegments(log)), [
    [0, 5, 0],
    [5, 10, 3],
    [15, 10, 55],
    [30, 10, 20],
    [40, 10, 123],
    [50, 80, 40],
    [150, 100, 21],
  ]);
});

test("an upper layer hides and trims what lies below", () => {
  const upper = listOf([
    [5, 5, 0],
    [10, 10, 50],
    [100, 10, 20],
  ]);
  const lower = listOf([
    [0, 1, 7],
    [2, 4, 5],
    [15, 10, 22],
    [30, 15, 89],
    [87, 50, 32],
    [150, 10, 84],
  ]);
  const merged = mergeSegments([lower, upper], [0, 1]);
  assert.deepEqual(rowsOf(merged), [
    [0, 1, 7],
    [2, 3, 5],
    [5, 5, 0],
    [10, 10, 50],
    [20, 5, 27],
    [30, 15, 89],
    [87, 13, 32],
    [100, 10, 20],
    [110, 27, 55],
    [150, 10, 84],
  ]);
  assert.deepEqual([...merged.tag.subarray(0, merged.count)], [0, 0, 1, 1, 0, 0, 0, 1, 0, 0]);
});

test("zeroed segments hide what lies below and keep their mapped sector when trimmed", () => {
  const merged = mergeSegments([listOf([[0, 100, 8, true]]), listOf([[10, 10, 50]]), listOf([[15, 3, 8, true]])], [0, 1, 2]);
  assert.deepEqual(rowsOf(merged), [
    [0, 10, 8],
    [10, 5, 50],
    [15, 3, 8],
    [18, 2, 58],
    [20, 80, 8],
  ]);
  assert.deepEqual(visited(SegmentTable.from(merged), 14, 19), [
    [14, 1, 54, 1],
    [15, 3, ZEROS, 2],
    [18, 1, 58, 1],
  ]);
});

const DEVICE_SECTORS = 200;
const anyMapping = fc.tuple(fc.nat(DEVICE_SECTORS - 1), fc.integer({ min: 1, max: 60 }), fc.integer({ min: 8, max: 5000 }), fc.boolean());

/** Each sector of the device as `tag:mapped sector`, made the plain way. */
function applied(model: string[], rows: readonly Row[], tag: number): void {
  for (const [first, sectors, mapped, zeroed] of rows) {
    for (let i = 0; i < sectors; i++) model[first + i] = zeroed ? `${tag}:zero` : `${tag}:${mapped + i}`;
  }
}

function modelOf(segments: Segments, end: number): string[] {
  const model: string[] = Array.from({ length: end }, () => "hole");
  SegmentTable.from(segments).forRange(0, end, (first, sectors, mapped, tag) => {
    for (let i = 0; i < sectors; i++) if (tag !== HOLE) model[first + i] = mapped === ZEROS ? `${tag}:zero` : `${tag}:${mapped + i}`;
  });
  return model;
}

test("random layers merge to what a plain array of sectors says", () => {
  fc.assert(
    fc.property(fc.array(fc.array(anyMapping, { maxLength: 12 }), { minLength: 1, maxLength: 9 }), (logs) => {
      const end = DEVICE_SECTORS + 60;
      const expected: string[] = Array.from({ length: end }, () => "hole");
      for (const [tag, rows] of logs.entries()) applied(expected, rows, tag);
      const merged = mergeSegments(
        logs.map((rows) => replaySegments(listOf(rows))),
        logs.map((_, layer) => layer),
      );
      assert.deepEqual(modelOf(merged, end), expected);
      for (let i = 1; i < merged.count; i++) assert.ok(merged.firstSector[i] >= merged.firstSector[i - 1] + merged.sectors[i - 1]);
      const table = SegmentTable.from(merged);
      for (let sector = 0; sector < end; sector++) {
        const found = table.find(sector);
        const linear = rowsOf(table).findIndex(([first, sectors]) => first + sectors > sector);
        assert.equal(found, linear < 0 ? table.count : linear);
      }
    }),
    { numRuns: 300 },
  );
});

test("a million segments merge and are found without a pause", () => {
  const lower = new MappingList();
  const upper = new MappingList();
  for (let i = 0; i < 500_000; i++) {
    lower.add(i * 16, 16, 8 + i * 16);
    upper.add(i * 16 + 4, 4, 8 + i * 4);
  }
  const table = SegmentTable.from(mergeSegments([lower, upper], [0, 1]));
  assert.equal(table.count, 1_500_000);
  assert.equal(table.find(16 * 250_000 + 5), 3 * 250_000 + 1);
});
