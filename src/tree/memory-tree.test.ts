import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hardlinkEntry, symlinkEntry, treeEntry } from "../../test/support/tree-entry.ts";
import type { Entry } from "./entry.ts";
import { layerChanges } from "./layer-changes.ts";
import { MemoryTree } from "./memory-tree.ts";

type TestEntry = Entry & { readonly content?: string };

function treeOf(...layers: TestEntry[][]): MemoryTree<TestEntry, string> {
  const tree = new MemoryTree((entry: TestEntry) => entry.content ?? "");
  for (const layer of layers) tree.apply(layerChanges(layer));
  return tree;
}

function file(path: string, content: string): TestEntry {
  return { ...treeEntry(path, { size: content.length }), content };
}

/** Paths below the root; files with their content, symlinks with their target. */
function shown(tree: MemoryTree<TestEntry, string>): string[] {
  const lines = [...tree.list()].slice(1).map(([path, inode]) => {
    if (inode.type === "directory") return `${path}/`;
    return inode.type === "symlink" ? `${path} -> ${inode.link}` : `${path} ${inode.content}`.trimEnd();
  });
  return lines;
}

test("an empty tree is a root directory of root's at time 0", () => {
  const [[path, root]] = [...treeOf().list()];
  assert.equal(path, "");
  assert.deepEqual([root.type, root.mode, root.uid, root.gid, root.mtime.seconds, root.xattrs.size], ["directory", 0o755, 0, 0, 0, 0]);
});

test("the root's entry sets its metadata and has to be a directory", () => {
  const tree = treeOf([treeEntry("/", { mode: 0o700, uid: 5, mtime: { seconds: 9, nanoseconds: 1 } }), file("f", "x")]);
  assert.deepEqual([tree.get("")!.mode, tree.get("")!.uid, tree.get("")!.mtime.seconds], [0o700, 5, 9]);
  assert.deepEqual(shown(tree), ["f x"]);
  assert.throws(() => treeOf([treeEntry("")]), { code: "CORRUPT", message: /root/ });
  assert.throws(() => treeOf([file("f", ""), hardlinkEntry("", "f")]), { code: "CORRUPT", message: /root/ });
});

test("missing parents are created plain, existing ones keep owner, mode and times", () => {
  const stamped = treeEntry("d/", { mode: 0o2750, uid: 7, gid: 8, mtime: { seconds: 99, nanoseconds: 5 } });
  const tree = treeOf([stamped], [file("d/e/f", "1"), file("d/g", "2")]);
  const { mode, uid, gid, mtime } = tree.get("d")!;
  assert.deepEqual([mode, uid, gid, mtime], [0o2750, 7, 8, { seconds: 99, nanoseconds: 5 }]);
  assert.deepEqual([tree.get("d/e")!.mode, tree.get("d/e")!.uid, tree.get("d/e")!.mtime], [0o755, 0, { seconds: 0, nanoseconds: 0 }]);
});

test("a directory over a directory keeps what is in it and replaces all metadata", () => {
  const old = treeEntry("d/", { uid: 1, xattrs: new Map([["user.old", Buffer.from("1")]]) });
  const young = treeEntry("d/", { uid: 2, mode: 0o700, xattrs: new Map([["user.new", Buffer.from("2")]]) });
  const tree = treeOf([old, file("d/f", "x")], [young]);
  assert.deepEqual(shown(tree), ["d/", "d/f x"]);
  assert.deepEqual([tree.get("d")!.uid, tree.get("d")!.mode, [...tree.get("d")!.xattrs.keys()]], [2, 0o700, ["user.new"]]);
});

test("whatever else meets is replaced, in archive order", () => {
  assert.deepEqual(shown(treeOf([file("a", "old")], [treeEntry("a/"), file("a/b", "new")])), ["a/", "a/b new"]);
  assert.deepEqual(shown(treeOf([treeEntry("a/"), file("a/b", "old")], [file("a", "new")])), ["a new"]);
  assert.deepEqual(shown(treeOf([file("a/b", "same layer"), file("a", "wins")])), ["a wins"]);
  assert.deepEqual(shown(treeOf([file("f", "1"), file("f", "2")])), ["f 2"]);
  assert.deepEqual(shown(treeOf([file("f", "1")], [symlinkEntry("f", "/etc")], [file("f", "3")])), ["f 3"]);
  assert.throws(() => treeOf([file("f", "1"), file("f/x", "2")]), { code: "CORRUPT", message: /"f" on the way is not a directory/ });
});

test("whiteouts hide lower layers only, wherever they are in the archive", () => {
  const lower = [treeEntry("d/"), file("d/x", "low"), file("d/y", "low"), file("e", "low")];
  const upper = [file("d/x", "up"), treeEntry("d/.wh.x"), treeEntry("d/.wh.y"), treeEntry(".wh.e"), file("e", "up")];
  for (const layer of [upper, upper.toReversed()]) assert.deepEqual(shown(treeOf(lower, layer)), ["d/", "d/x up", "e up"]);
  const opaque = [file("d/z", "up"), treeEntry("d/.wh..wh..opq")];
  for (const layer of [opaque, opaque.toReversed()]) assert.deepEqual(shown(treeOf(lower, layer)), ["d/", "d/z up", "e low"]);
  assert.deepEqual(shown(treeOf(lower, [treeEntry(".wh..wh..opq"), file("n", "up")])), ["n up"]);
});

test("an opaque directory keeps its own metadata, and hiding what is not there does nothing", () => {
  const tree = treeOf(
    [treeEntry("d/", { uid: 7 }), file("d/x", "1")],
    [treeEntry("d/.wh..wh..opq"), treeEntry("no/.wh.x"), treeEntry("no/.wh..wh..opq")],
  );
  assert.deepEqual(shown(tree), ["d/"]);
  assert.equal(tree.get("d")!.uid, 7);
  assert.deepEqual(shown(treeOf([file("f", "1")], [treeEntry("f/.wh.x"), treeEntry("f/.wh..wh..opq")])), ["f 1"]);
});

test("parents that are symlinks are followed inside of the root", () => {
  const rows: [target: string, made: string][] = [
    ["real", "real/f"],
    ["/real", "real/f"],
    ["../../../real", "real/f"],
    ["./real/../real//.", "real/f"],
    ["/", "f"],
    ["missing/deep", "missing/deep/f"],
    ["missing/../other", "other/f"],
  ];
  for (const [target, made] of rows) {
    const tree = treeOf([treeEntry("real/"), symlinkEntry("s", target)], [file("s/f", "x")]);
    assert.equal(tree.get(made)?.content, "x", target);
    assert.equal(tree.get("s")?.link, target);
  }
  const nested = treeOf([symlinkEntry("a/s", "../b"), symlinkEntry("b/t", "/c"), treeEntry("c/")], [file("a/s/t/f", "x")]);
  assert.equal(nested.get("c/f")?.content, "x");
});

test("symlink loops, long ways and names no directory can hold are refused", () => {
  assert.throws(() => treeOf([symlinkEntry("s", "s"), file("s/f", "x")]), { code: "CORRUPT", message: /more than 40 symlinks/ });
  assert.throws(() => treeOf([symlinkEntry("a", "b"), symlinkEntry("b", "a"), file("a/f", "x")]), { code: "CORRUPT" });
  const chain = (length: number): TestEntry[] => Array.from({ length }, (_, at) => symlinkEntry(`s${at}`, at === 0 ? "d" : `s${at - 1}`));
  assert.equal(treeOf([treeEntry("d/"), ...chain(40), file("s39/f", "x")]).get("d/f")?.content, "x");
  assert.throws(() => treeOf([treeEntry("d/"), ...chain(41), file("s40/f", "x")]), { code: "CORRUPT" });
  assert.throws(() => treeOf([symlinkEntry("s", "n".repeat(256)), file("s/f", "x")]), { code: "UNSUPPORTED" });
});

test("whiteouts go through symlinks of lower layers, unless the layer has a directory of its own there", () => {
  const lower = [treeEntry("real/"), file("real/x", "1"), file("real/y", "2"), symlinkEntry("s", "real")];
  assert.deepEqual(shown(treeOf(lower, [treeEntry("s/.wh.x")])), ["real/", "real/y 2", "s -> real"]);
  assert.deepEqual(shown(treeOf(lower, [treeEntry("s/.wh..wh..opq")])), ["real/", "s -> real"]);
  const kept = ["real/", "real/x 1", "real/y 2", "s/"];
  assert.deepEqual(shown(treeOf(lower, [treeEntry("s/"), treeEntry("s/.wh.x")])), kept);
  assert.deepEqual(shown(treeOf(lower, [treeEntry("s/"), treeEntry("s/.wh..wh..opq")])), kept);
  assert.deepEqual(shown(treeOf(lower, [treeEntry("s/.wh..wh..opq"), treeEntry("s/")])), kept);
  assert.deepEqual(shown(treeOf(lower, [treeEntry(".wh.s")])), ["real/", "real/x 1", "real/y 2"]);
});

test("hard links share an inode, also with files of lower layers", () => {
  const tree = treeOf(
    [file("d/f", "x"), symlinkEntry("s", "d"), symlinkEntry("l", "f")],
    [hardlinkEntry("g", "d/f"), hardlinkEntry("h", "s/f"), hardlinkEntry("m", "l")],
  );
  assert.equal(tree.get("g"), tree.get("d/f"));
  assert.equal(tree.get("h"), tree.get("d/f"));
  assert.equal(tree.get("m"), tree.get("l"), "a symlink itself can be linked to");
  const replaced = treeOf([file("f", "1"), hardlinkEntry("g", "f")], [file("f", "2")]);
  assert.deepEqual(shown(replaced), ["f 2", "g 1"]);
  assert.deepEqual(shown(treeOf([file("f", "1"), hardlinkEntry("f", "f")])), ["f 1"]);
  assert.deepEqual(shown(treeOf([file("f", "1"), hardlinkEntry("g", "f")], [treeEntry(".wh.f")])), ["g 1"]);
});

test("the metadata of a hard link's header is ignored", () => {
  const tree = treeOf([
    { ...file("f", "x"), uid: 3, mode: 0o600 },
    { ...hardlinkEntry("g", "f"), uid: 9, mode: 0o777 },
  ]);
  assert.deepEqual([tree.get("g")!.uid, tree.get("g")!.mode], [3, 0o600]);
});

test("hard links to nothing or to directories are refused", () => {
  assert.throws(() => treeOf([hardlinkEntry("h", "missing")]), { code: "CORRUPT", message: /"h".*"missing" does not exist/ });
  assert.throws(() => treeOf([hardlinkEntry("h", "h")]), { code: "CORRUPT" });
  assert.throws(() => treeOf([treeEntry("d/"), hardlinkEntry("h", "d")]), { code: "CORRUPT", message: /is a directory/ });
  assert.throws(() => treeOf([hardlinkEntry("h", "")]), { code: "CORRUPT", message: /is a directory/ });
});

test("xattrs that Linux does not store for a type are left out", () => {
  const xattrs = new Map([["user.a", Buffer.from("1")]]);
  const tree = treeOf([
    { ...symlinkEntry("l", "x"), xattrs },
    { ...file("f", ""), xattrs },
  ]);
  assert.deepEqual([tree.get("l")!.xattrs.size, tree.get("f")!.xattrs.size], [0, 1]);
});

test("the list has parents before children and names in byte order", () => {
  const paths = ["b/", "b/z", "b-", "b/a/", "\xff", "a"];
  const tree = treeOf(paths.map((path) => treeEntry(path)));
  assert.deepEqual(
    [...tree.list()].map(([path]) => path),
    ["", "a", "b", "b/a", "b/z", "b-", "\xff"].sort((a, b) => (a.split("/").join("\0") < b.split("/").join("\0") ? -1 : 1)),
  );
});

test("applying a squashed layer over nothing gives the tree it was made from", () => {
  const name = fc.constantFrom("a", "b", "c", "d");
  const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join("/"));
  const entry: fc.Arbitrary<TestEntry> = fc.oneof(
    fc.tuple(path, fc.string({ maxLength: 3 })).map(([at, content]) => file(at, content)),
    fc.tuple(path, fc.nat(9)).map(([at, uid]) => treeEntry(`${at}/`, { uid })),
    path.map((at) => treeEntry(at.replace(/[^/]+$/, ".wh.$&"))),
  );
  const layer = fc.array(entry, { maxLength: 8 });
  fc.assert(
    fc.property(fc.array(layer, { maxLength: 4 }), (layers) => {
      let tree: MemoryTree<TestEntry, string>;
      try {
        tree = treeOf(...layers);
      } catch (error) {
        assert.match(String(error), /on the way is not a directory/);
        return;
      }
      const squashed = [...tree.list()].map(([at, { children: _, ...inode }]: [string, { children?: unknown } & object]) => ({
        ...inode,
        path: at,
      }));
      assert.deepEqual([...treeOf(squashed as TestEntry[]).list()], [...tree.list()]);
    }),
  );
});
