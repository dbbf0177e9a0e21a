import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../../errors.ts";
import { parsePrefetchFile } from "./prefetch-file.ts";
import { parsePrefetchList } from "./prefetch-list.ts";

const parse = (text: string) => parsePrefetchList(Buffer.from(text), "app.list");
const pathsOf = (text: string) => parse(text).map(({ path, isDirectory }) => (isDirectory ? `${path}/` : path));

test("a list has a path on each line, with or without a slash in front and blanks around", () => {
  assert.deepEqual(pathsOf("/usr/bin/app\n  etc/hosts  \n\n   \nlib/libstdc++.so.6\r\nwith space"), [
    "usr/bin/app",
    "etc/hosts",
    "lib/libstdc++.so.6",
    "with space",
  ]);
  assert.deepEqual(
    parse("\na\n\nb\n").map(({ line }) => line),
    [2, 4],
  );
});

test("a slash or a star at the end means a directory", () => {
  assert.deepEqual(pathsOf("/usr/lib/\nopt/app/*\n/\n*\n.\n"), ["usr/lib/", "opt/app/", "/", "/", ""]);
});

test("names are the bytes of the list", () => {
  assert.deepEqual(pathsOf("/srv/größe"), [Buffer.from("srv/größe").toString("latin1")]);
});

test("paths do not leave the image", () => {
  assert.deepEqual(pathsOf("/../../etc/./passwd"), ["etc/passwd"]);
});

test("what cannot be a path is refused with its line", () => {
  const refuses = (text: string, message: RegExp, code = "CORRUPT"): void => {
    assert.throws(() => parse(text), { name: "LazyError", code, message });
  };
  refuses("fine\nusr/*/bin\n", /^app\.list:2: "usr\/\*\/bin": a \* may only stand for all that is in a directory, at the end/);
  refuses("usr/lib*", /^app\.list:1: "usr\/lib\*": a \*/);
  refuses("\n\na\0b", /^app\.list:3: "a\\u0000b" has control characters: the file is neither a trace nor a list of paths$/);
  refuses("x".repeat(300), /^app\.list:1: "x+\.\.\." is no path that Linux could look up$/);
  refuses("a\n".repeat(40_000), /^app\.list: a list of 80000 bytes, expected at most 65536; name directories/, "UNSUPPORTED");
});

test("an empty file names nothing, and is neither", () => {
  assert.throws(() => parsePrefetchFile(Buffer.alloc(0), "app.list"), { code: "CORRUPT", message: /^app\.list: is empty/ });
});

test("any bytes are a list of clean paths, or refused", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.string({ unit: "grapheme-ascii" }).map((text) => Buffer.from(text)),
  );
  fc.assert(
    fc.property(bytes, (all) => {
      try {
        for (const { path } of parsePrefetchList(all, "list")) assert.doesNotMatch(path, /^\/|\/$|\/\/|(^|\/)\.{1,2}(\/|$)|[\n\0*]/);
      } catch (error) {
        assert.ok(error instanceof LazyError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});
