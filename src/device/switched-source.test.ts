import assert from "node:assert/strict";
import { test } from "node:test";
import { HeldDevice } from "../../test/support/held-device.ts";
import { MemorySource } from "../bytes/source.ts";
import { SwitchedSource } from "./switched-source.ts";

function switched(): { readonly remote: HeldDevice; readonly source: SwitchedSource; readonly notices: string[] } {
  const remote = new HeldDevice(Buffer.from("remote"));
  const notices: string[] = [];
  return { remote, notices, source: new SwitchedSource(remote, (message) => notices.push(message)) };
}

async function textOf(source: SwitchedSource): Promise<string> {
  return Buffer.from(await source.read(0, source.size)).toString();
}

test("a read that is underway ends where it began, and the next one is of the file", async () => {
  const { remote, source } = switched();
  const gate = Promise.withResolvers<void>();
  remote.gate = () => gate.promise;
  const underway = textOf(source);
  let isIdle = false;
  const idle = source.idle().then(() => (isIdle = true));
  source.switchTo(new MemorySource(Buffer.from("local!"), "file"));
  assert.equal(await textOf(source), "local!");
  assert.equal(isIdle, false, "somebody waits for the remote blob still");
  gate.resolve();
  assert.equal(await underway, "remote");
  await idle;
  assert.deepEqual(remote.calls, ["read 0+6"]);
});

test("a file that fails or has wrong bytes is left for the remote blob, once and with a notice", async () => {
  const failing = switched();
  const file = new MemorySource(Buffer.from("loc"), "file"); // it was cut off meanwhile
  failing.source.switchTo(file);
  assert.deepEqual(await Promise.all([textOf(failing.source), textOf(failing.source)]), ["remote", "remote"]);
  assert.equal(failing.notices.length, 1);
  assert.match(failing.notices[0], /^file: .*; the layer is read from the registry again$/);

  const wrong = switched();
  wrong.source.switchTo(new MemorySource(Buffer.from("locale"), "file"));
  wrong.source.distrust();
  assert.equal(await textOf(wrong.source), "remote");
  assert.deepEqual(wrong.notices, ["file: gave wrong bytes; the layer is read from the registry again"]);
});

test("closing closes every file and the remote blob", async () => {
  const closed: string[] = [];
  const closing = (name: string): MemorySource =>
    Object.assign(new MemorySource(Buffer.alloc(4), name), { close: async () => void closed.push(name) });
  const source = new SwitchedSource(closing("remote"), assert.fail);
  source.switchTo(closing("first"));
  source.switchTo(closing("second"));
  await source.close();
  assert.deepEqual(closed, ["first", "second", "remote"]);
});
