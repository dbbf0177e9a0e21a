import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { run } from "../../test/support/command.ts";
import { readTar } from "../../test/support/tar-events.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { ARCHIVE_END, memberHead, memberPadding } from "./member-head.ts";
import type { TarEntry } from "./tar-entry.ts";
import { TarReader } from "./tar-reader.ts";

const file = (path: string, text: string): Uint8Array =>
  Buffer.concat([memberHead({ path, size: text.length }), Buffer.from(text), memberPadding(text.length)]);

test("members that are written are read again, by GNU tar too, as root's and of time 0", async () => {
  const archive = Buffer.concat([memberHead({ path: "d/", size: 0 }), file("d/f", "hello"), file("n".repeat(100), ""), ARCHIVE_END]);
  const shown = readTar(archive).map(({ path, type, mode, uid, mtime, data }) => [path, type, mode, uid, mtime.seconds, data.toString()]);
  assert.deepEqual(shown, [
    ["d", "directory", 0o755, 0, 0, ""],
    ["d/f", "file", 0o644, 0, 0, "hello"],
    ["n".repeat(100), "file", 0o644, 0, 0, ""],
  ]);
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("a.tar"), archive);
  const listing = await run("tar", ["-tvf", scratch.join("a.tar"), "--full-time"], { env: { TZ: "UTC" } });
  assert.match(listing, /^drwxr-xr-x root\/root +0 1970-01-01 00:00:00 d\/\n-rw-r--r-- root\/root +5 1970-01-01 00:00:00 d\/f\n/);
});

for (const [size, headBytes] of [
  [2 ** 33 - 1, 512],
  [2 ** 33, 1536],
  [2 ** 52, 1536],
]) {
  test(`a size of ${size} bytes is read as it is written`, () => {
    const head = memberHead({ path: "big", size });
    assert.equal(head.length, headBytes);
    const sizes: number[] = [];
    const reader = new TarReader({ entry: (entry: TarEntry) => sizes.push(entry.size), data: () => {}, entryEnd: () => {} }, "archive");
    reader.write(head);
    assert.deepEqual(sizes, [size]);
  });
}

test("a member that cannot be written as it is asked for is refused", () => {
  for (const path of ["", "n".repeat(101), "a b", "é", "a\nb"]) assert.throws(() => memberHead({ path, size: 1 }), { code: "USAGE" });
  for (const size of [-1, 0.5, 2 ** 53]) assert.throws(() => memberHead({ path: "f", size }), { code: "USAGE" });
});
