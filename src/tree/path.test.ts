import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { baseName, cleanPath, joinPath, parentPath } from "./path.ts";

test("names become clean paths that never climb out of the root", () => {
  const rows: [string, string][] = [
    ["", ""],
    ["/", ""],
    [".", ""],
    ["./", ""],
    ["..", ""],
    ["a", "a"],
    ["a/", "a"],
    ["a//", "a"],
    ["./a", "a"],
    ["/a/b", "a/b"],
    ["a//b", "a/b"],
    ["a/./b/.", "a/b"],
    ["a/../b", "b"],
    ["../../x", "x"],
    ["/../x/..", ""],
    ["a/b/../../../c", "c"],
    ["...", "..."],
    [".a/..b", ".a/..b"],
    ["a\nb/./c", "a\nb/c"],
    ["a/.\n./b", "a/.\n./b"],
  ];
  for (const [name, expected] of rows) assert.equal(cleanPath(name), expected, JSON.stringify(name));
});

test("names that Linux could not look up are refused", () => {
  assert.throws(() => cleanPath("a\0b"), { code: "CORRUPT", message: /NUL/ });
  assert.equal(cleanPath("n".repeat(255)), "n".repeat(255));
  assert.throws(() => cleanPath(`d/${"n".repeat(256)}`), { code: "UNSUPPORTED", message: /nnn.*256 bytes/ });
  assert.equal(cleanPath("a/".repeat(2047) + "ab").length, 4096);
  assert.throws(() => cleanPath("a/".repeat(2048) + "b"), { code: "UNSUPPORTED", message: /4097 bytes long/ });
  assert.equal(cleanPath(`${"n".repeat(300)}/../a`), "a");
});

test("a clean path stays as it is and consists of clean elements", () => {
  const element = fc.constantFrom("", ".", "..", "a", "b.c", "...", "\n", "\xff");
  const name = fc.array(element, { maxLength: 12 }).map((elements) => elements.join("/"));
  fc.assert(
    fc.property(name, (raw) => {
      const path = cleanPath(raw);
      assert.equal(cleanPath(path), path);
      if (path !== "") for (const part of path.split("/")) assert.ok(!["", ".", ".."].includes(part));
      assert.equal(joinPath(parentPath(path), baseName(path)), path);
    }),
    { verbose: 1 },
  );
});

test("errors of names are LazyErrors with the name escaped", () => {
  assert.throws(
    () => cleanPath("\x1b[31m\0"),
    (error) => error instanceof LazyError && error.message.includes("\\u001b[31m"),
  );
});
