import assert from "node:assert/strict";
import { test } from "node:test";
import { hardlinkEntry, treeEntry } from "../../test/support/tree-entry.ts";
import type { Entry } from "./entry.ts";
import { layerChanges } from "./layer-changes.ts";

function summary(entries: readonly Entry[]): string[] {
  return Array.from(layerChanges(entries), (change) =>
    change.kind === "put" ? `put ${change.entry.path}` : `${change.kind} ${change.path}`,
  );
}

test("whiteouts come before puts, parents before children, puts in archive order", () => {
  const entries = ["b", "d/", "d/.wh.z", "a", "d/.wh..wh..opq", ".wh.d", ".wh.a"].map((path) => treeEntry(path));
  assert.deepEqual(summary(entries), ["remove a", "clear d", "remove d", "remove d/z", "put b", "put d", "put a"]);
});

test("an opaque marker at the root clears the root", () => {
  assert.deepEqual(summary([treeEntry("a"), treeEntry(".wh..wh..opq")]), ["clear ", "put a"]);
});

test("a directory spelled as a whiteout is a whiteout", () => {
  assert.deepEqual(summary([treeEntry("d/.wh.x/")]), ["remove d/x"]);
});

test("other AUFS names and all below them are ignored", () => {
  assert.deepEqual(
    summary([treeEntry(".wh..wh.aufs"), treeEntry(".wh..wh.plnk/"), treeEntry(".wh..wh.plnk/4.5"), treeEntry("d/.wh..wh.orph/")]),
    [],
  );
});

test("names that merely contain the prefix are ordinary", () => {
  assert.deepEqual(summary([treeEntry("a.wh.b"), treeEntry("x.wh..wh..opq/"), treeEntry(".wh"), treeEntry(".whx")]), [
    "put a.wh.b",
    "put x.wh..wh..opq",
    "put .wh",
    "put .whx",
  ]);
});

test("whiteouts of nothing and entries below whiteouts are refused", () => {
  for (const path of [".wh.", "d/.wh.", "d/.wh..", "d/.wh..."]) {
    assert.throws(() => layerChanges([treeEntry(path)]), { code: "CORRUPT", message: /whiteout of no name/ }, path);
  }
  assert.throws(() => layerChanges([treeEntry(".wh.d/x")]), { code: "CORRUPT", message: /below a whiteout/ });
});

test("a hard link into the AUFS link directory is refused with a way out", () => {
  assert.throws(() => layerChanges([hardlinkEntry("a", ".wh..wh.plnk/4.5")]), { code: "UNSUPPORTED", message: /AUFS/ });
});

test("entries that say that they hide nothing are gone through once", () => {
  let rounds = 0;
  const entries = {
    mayHide: false,
    *[Symbol.iterator]() {
      rounds++;
      yield treeEntry("a");
    },
  };
  assert.deepEqual(
    Array.from(layerChanges(entries), (change) => change.kind),
    ["put"],
  );
  assert.equal(rounds, 1);
});
