import assert from "node:assert/strict";
import { test } from "node:test";
import { TARGET_TAG } from "../formats/lsmt/layout.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import type { PayloadPlace } from "../tree/filesystem-writer.ts";
import { treeEntry } from "../../test/support/tree-entry.ts";
import type { ScannedEntry } from "./entry-log.ts";
import { mapToTar } from "./tar-mappings.ts";

const BLOCK = 4096;

/** What is mapped: `device sectors = where`. */
function mapped(entries: readonly ScannedEntry[], places: readonly PayloadPlace[], hidesBelow: boolean): string[] {
  const mappings = new MappingList();
  mapToTar(entries, places, { mappings, hidesBelow, name: "layer 3" });
  return Array.from({ length: mappings.count }, (_, at) => {
    const sectors = `${mappings.firstSector[at]}+${mappings.sectors[at]}`;
    if (mappings.zeroed[at]) return `${sectors} = zeros`;
    assert.equal(mappings.tag[at], TARGET_TAG);
    return `${sectors} = tar ${mappings.mappedSector[at]}`;
  });
}

/** Two blocks and 100 bytes, in sectors 3 to 19 of the archive. */
const PLAIN: ScannedEntry = {
  ...treeEntry("plain", { size: 2 * BLOCK + 100, extents: [{ offset: 0, length: 2 * BLOCK + 100 }] }),
  payloadBlock: 0,
  runs: [{ fileBlock: 0, blocks: 3 }],
  dataOffset: 3 * 512,
};

/** A sector in the middle of block 1, and block 5, one behind the other from sector 30 of the archive on. */
const SPARSE: ScannedEntry = {
  ...treeEntry("sparse", {
    size: 6 * BLOCK,
    extents: [
      { offset: BLOCK + 1024, length: 512 },
      { offset: 5 * BLOCK, length: BLOCK },
    ],
  }),
  payloadBlock: 3,
  runs: [
    { fileBlock: 1, blocks: 1 },
    { fileBlock: 5, blocks: 1 },
  ],
  dataOffset: 30 * 512,
};

const PLACES: readonly PayloadPlace[] = [
  { payloadBlock: 0, block: 100, blocks: 2 },
  { payloadBlock: 2, block: 50, blocks: 2 },
  { payloadBlock: 4, block: 200, blocks: 1 },
];

test("blocks are mapped to where the archive has their data, in whatever pieces they lie on the device", () => {
  assert.deepEqual(mapped([PLAIN, SPARSE], PLACES, false), ["800+16 = tar 3", "400+1 = tar 19", "410+1 = tar 30", "1600+8 = tar 31"]);
});

test("above other layers, what files leave of their blocks hides what was there", () => {
  assert.deepEqual(mapped([PLAIN, SPARSE], PLACES, true), [
    "800+16 = tar 3",
    "400+1 = tar 19",
    "401+7 = zeros",
    "408+2 = zeros",
    "410+1 = tar 30",
    "411+5 = zeros",
    "1600+8 = tar 31",
  ]);
});

test("blocks that the filesystem does not refer to are not mapped", () => {
  assert.deepEqual(mapped([PLAIN, SPARSE], PLACES.slice(2), true), ["1600+8 = tar 31"]);
  assert.deepEqual(mapped([PLAIN, SPARSE], PLACES.slice(0, 1), true), ["800+16 = tar 3"]);
  assert.deepEqual(mapped([PLAIN, SPARSE], [], true), []);
});

test("data that does not begin with a sector is refused, by name", () => {
  const odd = { ...SPARSE, extents: [{ offset: BLOCK + 1000, length: 512 }], runs: SPARSE.runs.slice(0, 1) };
  assert.throws(() => mapped([odd], [{ payloadBlock: 3, block: 1, blocks: 1 }], false), {
    code: "UNSUPPORTED",
    message: /^layer 3: "sparse" is a sparse file whose data at 5096 /,
  });
});
