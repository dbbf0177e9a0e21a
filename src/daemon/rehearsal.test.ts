import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { rehearse } from "./rehearsal.ts";

/** Node lists what is closed for a moment. */
async function noServers(): Promise<void> {
  for (let tries = 0; process.getActiveResourcesInfo().includes("TCPServerWrap"); tries++) {
    assert.ok(tries < 100, "a server is left");
    await sleep(10);
  }
}

test("a rehearsal opens an image of its own, and leaves nothing", async () => {
  await using temporary = await TemporaryDirectory.create();
  const directory = temporary.join("spare");
  const listeners = process.listenerCount("exit");
  await rehearse(directory, new AbortController().signal);
  assert.equal(existsSync(directory), false);
  await noServers();
  assert.equal(process.listenerCount("exit"), listeners);
});

test("a rehearsal that is interrupted ends with the reason, and leaves nothing", async () => {
  await using temporary = await TemporaryDirectory.create();
  const directory = temporary.join("spare");
  for (const milliseconds of [0, 5, 10, 20]) {
    const interruption = new AbortController();
    const rehearsing = rehearse(directory, interruption.signal);
    const timer = setTimeout(() => interruption.abort(new Error("an order came")), milliseconds);
    await rehearsing.catch((error: unknown) => assert.match(String(error), /an order came/));
    clearTimeout(timer);
    assert.equal(existsSync(directory), false);
    await noServers();
  }
});

test("a rehearsal that has no place for its cache fails", async () => {
  await using temporary = await TemporaryDirectory.create();
  await writeFile(temporary.join("file"), "");
  await assert.rejects(rehearse(temporary.join("file", "spare"), new AbortController().signal), /ENOTDIR|not a directory/);
  await noServers();
});
