import assert from "node:assert/strict";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { run } from "../../test/support/command.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { openUnsynced, readingUnsynced } from "./unsynced-file.ts";

const silent = (message: string): void => assert.fail(message);

test("the file is there from its first write until it is closed with nothing in it", async () => {
  await using directory = await TemporaryDirectory.create();
  await writeFile(directory.join("index"), "");
  const left = async (): Promise<string[]> => (await readdir(directory.path)).filter((name) => name !== "index");

  const first = await openUnsynced(directory.join("index"), silent);
  assert.deepEqual([await left(), first?.file.size], [[], 0]);
  await first?.file.write(0, Buffer.from("kept"));
  assert.deepEqual(await left(), ["index.unsynced"]);
  await first?.file.close();
  assert.deepEqual(await left(), ["index.unsynced"]);

  const second = await openUnsynced(directory.join("index"), silent);
  assert.equal(Buffer.from((await second?.file.read(0, 4)) ?? []).toString(), "kept");
  await second?.file.truncate(0);
  assert.deepEqual(await left(), ["index.unsynced"]);
  await second?.file.close();
  assert.deepEqual(await left(), []);

  const third = await openUnsynced(directory.join("index"), silent);
  await third?.file.close();
  assert.deepEqual(await left(), []);
});

test("it is found by whatever name the index file is reached, and read without being changed", async () => {
  await using directory = await TemporaryDirectory.create();
  await writeFile(directory.join("index"), "");
  await mkdir(directory.join("elsewhere"));
  await symlink("../index", directory.join("elsewhere/link"));
  await writeFile(directory.join("index.unsynced"), "kept");
  const boot = (await readFile("/proc/sys/kernel/random/boot_id", "latin1")).trim();
  const size = await readingUnsynced(directory.join("elsewhere/link"), silent, async (place) => {
    assert.equal(place?.bootId, boot);
    return place?.file.size;
  });
  assert.equal(size, 4);
  const place = await openUnsynced(directory.join("elsewhere/link"), silent);
  assert.deepEqual([place?.file.size, place?.bootId], [4, boot]);
  await place?.file.close();
  assert.equal(await readFile(directory.join("index.unsynced"), "latin1"), "kept");
});

test("where there can be no such file the layer does without, and says so; one that cannot be opened is not passed over", async () => {
  assert.equal(process.geteuid?.(), 0, "this test mounts a file system: run it as root");
  await using directory = await TemporaryDirectory.create();
  const mount = directory.join("read-only");
  await mkdir(mount);
  await run("mount", ["-t", "tmpfs", "lazylayer-test", mount]);
  try {
    await writeFile(`${mount}/index`, "");
    await run("mount", ["-o", "remount,ro", mount]);
    const notices: string[] = [];
    assert.equal(await openUnsynced(`${mount}/index`, (message) => void notices.push(message)), undefined);
    assert.match(notices.join(), /read-only\/index: what is not flushed is lost when the process is killed.*EROFS/);
    assert.equal(await readingUnsynced(`${mount}/index`, silent, async (place) => place), undefined);
  } finally {
    await run("umount", [mount]);
  }
  await writeFile(directory.join("index"), "");
  await mkdir(directory.join("index.unsynced"));
  await assert.rejects(openUnsynced(directory.join("index"), silent), /index\.unsynced/);
});
