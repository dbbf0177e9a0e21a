import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { lazylayerInProcess } from "../../test/support/in-process.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";

async function config(
  command: "check" | "show",
  content: object,
): Promise<{ status: number | null; stdout: string; stderr: string; file: string }> {
  await using directory = await TemporaryDirectory.create();
  const file = directory.join("config.json");
  await writeFile(file, JSON.stringify(content));
  const { status, stdout, stderr } = await lazylayerInProcess(["config", command, file]);
  return { status, stdout: stdout.toString(), stderr, file };
}

test("config check prints notices, and its status is 0 for a file that can be used", async () => {
  const { status, stdout, stderr, file } = await config("check", { ioEngine: 1, cacheConfg: {} });
  assert.equal(status, 0);
  assert.equal(
    stdout,
    `${file}: cacheConfg is not known and has no effect; is cacheConfig meant?\n` +
      `${file}: ioEngine is 1, and has no effect: local files are read in the same way always\n`,
  );
  assert.equal(stderr, `${file}: can be used\n`);
});

test("config check says what is wrong, and its status is 1 for a file that cannot be used", async () => {
  const service = await config("check", { ioEngine: 7 });
  assert.deepEqual([service.status, service.stdout], [1, ""]);
  assert.equal(service.stderr, `${service.file}: ioEngine is 7, expected a whole number from 0 to 2\n`);
  const image = await config("check", { lowers: [{ file: "/a" }, { fle: "/a", size: -1 }] });
  assert.deepEqual([image.status, image.stdout], [1, ""]);
  assert.match(image.stderr, /: lowers\[1\]\.size is -1, expected bytes from 0 to \d+\n$/);
});

test("config check knows images by their keys", async () => {
  const { status, stdout } = await config("check", { lowers: [{ fle: "/a" }], upper: { vsize: 64 } });
  assert.equal(status, 0);
  assert.match(stdout, /: lowers\[0\]\.fle is not known and has no effect; is lowers\[0\]\.file meant\?\n$/);
});

test("config show prints a configuration of the same meaning", async () => {
  const { status, stdout, stderr } = await config("show", { registryCacheDir: "/old", logPath: "/log" });
  assert.deepEqual([status, stderr], [0, ""]);
  const again = await config("show", JSON.parse(stdout) as object);
  assert.equal(again.stdout, stdout);
  assert.match(stdout, /"cacheDir": "\/old"/);
  const image = await config("show", { lowers: [{ file: "/a" }] });
  assert.deepEqual(Object.keys(JSON.parse(image.stdout) as object), [
    "repoBlobUrl",
    "lowers",
    "upper",
    "resultFile",
    "accelerationLayer",
    "recordTracePath",
  ]);
});

test("a file that is not there is a failure, and one that is wrong a wrong call for config show", async () => {
  for (const command of ["check", "show"]) {
    const { status, stderr } = await lazylayerInProcess(["config", command, "/nonexistent.json"]);
    assert.equal(status, 1);
    assert.match(stderr, /nonexistent\.json: cannot be read: ENOENT/);
  }
  assert.equal((await config("show", { ioEngine: 7 })).status, 2);
});
