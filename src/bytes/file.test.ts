import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { DiskFile } from "./file.ts";

test("a new file is written anywhere, cut off, lengthened with zeros, and is on disk", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("new");
  const file = await DiskFile.create(path);
  assert.equal(file.size, 0);
  await file.write(10, Buffer.from("abcdef"));
  assert.equal(file.size, 16);
  await file.write(2, Buffer.from("xy"));
  await file.truncate(14);
  await file.truncate(20);
  await file.flush();
  const expected = Buffer.from("\0\0xy\0\0\0\0\0\0abcd\0\0\0\0\0\0");
  assert.deepEqual(await file.read(0, 20), expected);
  await assert.rejects(file.read(0, 21), { code: "CORRUPT" });
  await file.close();
  assert.deepEqual(await readFile(path), expected);
  assert.equal((await stat(path)).mode & 0o777, 0o644 & ~process.umask());
});

test("lengthening takes no room on disk", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("sparse");
  const file = await DiskFile.create(path);
  await file.truncate(1 << 30);
  await file.write(1 << 29, new Uint8Array(4096).fill(1));
  await file.flush();
  await file.close();
  assert.ok((await stat(path)).blocks * 512 < 1 << 20);
});

test("a file that is there is opened with its size, and not made anew", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("old");
  await writeFile(path, "content");
  const file = await DiskFile.open(path);
  assert.equal(file.size, 7);
  await file.write(3, Buffer.from("-"));
  await file.close();
  assert.equal(await readFile(path, "utf8"), "con-ent");
  await assert.rejects(DiskFile.create(path), { code: "USAGE", message: /exists already/ });
  assert.equal(await readFile(path, "utf8"), "con-ent");
});

test("what is missing, no file, or in no directory is refused", async () => {
  await using directory = await TemporaryDirectory.create();
  await assert.rejects(DiskFile.open(directory.join("missing")), { code: "NOT_FOUND" });
  await assert.rejects(DiskFile.create(directory.join("missing", "new")), { code: "NOT_FOUND" });
  await assert.rejects(DiskFile.open(directory.path));
  await assert.rejects(DiskFile.open("/dev/null"), { code: "USAGE", message: /not a regular file/ });
});

test("a write or flush that fails says of which file", async () => {
  await using directory = await TemporaryDirectory.create();
  const file = await DiskFile.create(directory.join("gone"));
  await file.close();
  await assert.rejects(file.write(0, new Uint8Array(1)), { code: "UNAVAILABLE", message: /gone: cannot write at 0/ });
  await assert.rejects(file.flush(), { code: "UNAVAILABLE", message: /gone: cannot flush/ });
  // The kernel forgets what it could not write: a later flush would say that all is well.
  await assert.rejects(file.flush(), { code: "UNAVAILABLE", message: /an earlier flush failed/ });
});
