import assert from "node:assert/strict";
import { readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { digestOf } from "../oci/digest.ts";
import { UploadDirectory, type UploadKey } from "./upload-journal.ts";

const HOUR_MS = 3600 * 1000;
const upload = { location: new URL("https://registry.example/v2/a/b/blobs/uploads/1?_state=secret"), arrived: 5_000_000 };

function keyOf(name: string): UploadKey {
  return { origin: "https://registry.example", repository: "a/b", content: digestOf(Buffer.from(name)) };
}

/** Runs a test with a journal in a directory that does not exist yet, at a time that the test may change. */
async function withJournal(
  test: (journal: UploadDirectory, path: string, clock: { ms: number }, notices: string[]) => Promise<void>,
): Promise<void> {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("state", "uploads");
  const clock = { ms: Date.now() };
  const notices: string[] = [];
  await test(new UploadDirectory(path, { now: () => clock.ms, notice: (message) => notices.push(message) }), path, clock, notices);
}

async function onlyFile(path: string): Promise<string> {
  const names = await readdir(path);
  assert.equal(names.length, 1);
  return `${path}/${names[0]}`;
}

describe("a directory of half-made uploads", () => {
  it("gives back what it was told last, to another process too, until it is told to forget", async () => {
    await withJournal(async (journal, path) => {
      assert.equal(await journal.find(keyOf("x")), undefined);
      await journal.remember(keyOf("x"), { ...upload, arrived: 1 });
      await journal.remember(keyOf("x"), upload);
      const other = new UploadDirectory(path, { now: Date.now });
      const found = await other.find(keyOf("x"));
      assert.deepEqual([found?.location.href, found?.arrived], [upload.location.href, upload.arrived]);
      for (const key of [keyOf("y"), { ...keyOf("x"), repository: "a" }, { ...keyOf("x"), origin: "http://registry.example" }]) {
        assert.equal(await other.find(key), undefined);
      }
      await other.forget(keyOf("x"));
      assert.equal(await journal.find(keyOf("x")), undefined);
      assert.deepEqual(await readdir(path), []);
    });
  });

  it("is for its owner alone, and names nobody's repository", async () => {
    await withJournal(async (journal, path) => {
      await journal.remember(keyOf("x"), upload);
      assert.equal((await stat(path)).mode & 0o777, 0o700);
      const file = await onlyFile(path);
      assert.equal((await stat(file)).mode & 0o777, 0o600);
      assert.match(file, /\/[0-9a-f]{64}\.json$/);
    });
  });

  it("ignores and removes what is a day old, or from the future", async () => {
    await withJournal(async (journal, path, clock) => {
      for (const shiftMs of [24 * HOUR_MS, -HOUR_MS]) {
        await journal.remember(keyOf("x"), upload);
        clock.ms += shiftMs;
        assert.equal(await journal.find(keyOf("x")), undefined);
        assert.deepEqual(await readdir(path), []);
      }
      await journal.remember(keyOf("x"), upload);
      clock.ms += 23 * HOUR_MS;
      assert.equal((await journal.find(keyOf("x")))?.arrived, upload.arrived);
      clock.ms += 2 * HOUR_MS;
      await journal.remember(keyOf("y"), upload);
      assert.equal((await readdir(path)).length, 1);
    });
  });

  it("ignores damaged files and those that were put in the place of one", async () => {
    await withJournal(async (journal, path) => {
      await journal.remember(keyOf("x"), upload);
      const file = await onlyFile(path);
      const text = await readFile(file, "utf8");
      const raw = JSON.parse(text) as Record<string, unknown>;
      const damaged = [
        "",
        "{",
        "[]",
        "\xff",
        text.slice(0, -1),
        `${text}${" ".repeat(20_000)}`,
        ...[
          { content: digestOf(Buffer.from("z")) },
          { location: "no address" },
          { location: 5 },
          { arrived: -1 },
          { arrived: "9" },
          { arrived: 1.5 },
          { at: null },
          { owner: 0 },
          { owner: -1 },
        ].map((change) => JSON.stringify({ ...raw, ...change })),
      ];
      for (const content of damaged) {
        await writeFile(file, content, "latin1");
        assert.equal(await journal.find(keyOf("x")), undefined, content.slice(0, 300));
      }
      await writeFile(file, text);
      assert.notEqual(await journal.find(keyOf("x")), undefined);
      await writeFile(`${path}/elsewhere`, text);
      await journal.forget(keyOf("x"));
      await symlink(`${path}/elsewhere`, file);
      assert.equal(await journal.find(keyOf("x")), undefined);
    });
  });

  it("leaves alone what another process is at", async () => {
    await withJournal(async (journal, path) => {
      await journal.remember(keyOf("x"), upload);
      const file = await onlyFile(path);
      const text = await readFile(file, "utf8");
      await writeFile(file, text.replace(`"owner":${process.pid}`, `"owner":${process.ppid}`));
      assert.equal(await journal.find(keyOf("x")), undefined);
      await writeFile(file, text.replace(`"owner":${process.pid}`, '"owner":4194305')); // beyond what Linux gives
      assert.notEqual(await journal.find(keyOf("x")), undefined);
    });
  });

  it("keeps no more than 256, the latest", async () => {
    await withJournal(async (journal, path) => {
      for (let at = 0; at < 260; at++) await journal.remember(keyOf(`x${at}`), upload);
      assert.equal((await readdir(path)).length, 256);
      assert.notEqual(await journal.find(keyOf("x259")), undefined);
    });
  });

  it("says once that it cannot write, without the session's address, and goes on", async () => {
    await using directory = await TemporaryDirectory.create();
    await writeFile(directory.join("file"), "");
    const notices: string[] = [];
    const journal = new UploadDirectory(directory.join("file", "uploads"), { now: Date.now, notice: (message) => notices.push(message) });
    for (let times = 0; times < 3; times++) await journal.remember(keyOf("x"), upload);
    assert.equal(await journal.find(keyOf("x")), undefined);
    await journal.forget(keyOf("x"));
    assert.equal(notices.length, 1);
    assert.match(notices[0], /will start over/);
    assert.doesNotMatch(notices[0], /secret/);
  });
});
