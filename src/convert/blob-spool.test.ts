import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { test } from "node:test";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { BlobSpool, SpoolMemory } from "./blob-spool.ts";

const MIB = 1 << 20;

test("a small blob stays in memory, a larger one goes to a file; both read back with what was patched", async () => {
  await using scratch = await TemporaryDirectory.create();
  for (const pieces of [0, 1, 3, 12]) {
    const path = scratch.join(`blob-${pieces}`, "overlaybd.commit");
    const spool = new BlobSpool({ path, keep: false, memory: new SpoolMemory(8 * MIB) });
    for (let piece = 0; piece < pieces; piece++) await spool.write(Buffer.alloc(MIB, piece));
    if (pieces > 0) await spool.patch(1, Buffer.from("head"));
    const expected = Buffer.concat(Array.from({ length: pieces }, (_, piece) => Buffer.alloc(MIB, piece)));
    if (pieces > 0) expected.write("head", 1);
    assert.equal(existsSync(path), pieces > 8);
    assert.ok(expected.equals(await spool.read(0, spool.size)));
    if (pieces > 0) await assert.rejects(spool.read(1, spool.size));
    await spool.close();
    assert.equal(existsSync(scratch.join(`blob-${pieces}`)), false);
  }
});

test("blobs share their memory: who finds none left goes to a file, and closing gives it back", async () => {
  await using scratch = await TemporaryDirectory.create();
  const memory = new SpoolMemory(3 * MIB);
  const open = (name: string): BlobSpool => new BlobSpool({ path: scratch.join(name, "blob"), keep: false, memory });
  const [first, second, third] = [open("first"), open("second"), open("third")];
  await first.write(Buffer.alloc(2 * MIB));
  await second.write(Buffer.alloc(MIB, 1));
  await second.write(Buffer.alloc(MIB, 2));
  assert.equal(existsSync(second.name), true, "its second piece found no room");
  assert.ok(Buffer.concat([Buffer.alloc(MIB, 1), Buffer.alloc(MIB, 2)]).equals(await second.read(0, 2 * MIB)));
  await third.write(Buffer.alloc(MIB));
  assert.equal(existsSync(third.name), false, "what the second had is free again");
  await Promise.all([first.close(), second.close(), third.close()]);
  assert.equal(memory.take(3 * MIB), true);
});

test("a blob goes to a file when the process has no memory to spare", async () => {
  await using scratch = await TemporaryDirectory.create();
  const spool = (limit: number): BlobSpool =>
    new BlobSpool({ path: scratch.join(String(limit), "blob"), keep: false, memory: new SpoolMemory(MIB, limit) });
  const [below, above] = [spool(process.memoryUsage.rss() * 2), spool(process.memoryUsage.rss() / 2)];
  for (const blob of [below, above]) await blob.write(Buffer.from("content"));
  assert.deepEqual([existsSync(below.name), existsSync(above.name)], [false, true]);
  for (const blob of [below, above]) await blob.close();
});

test("closing while a blob moves to a file leaves nothing of it", async () => {
  await using scratch = await TemporaryDirectory.create();
  const spool = new BlobSpool({ path: scratch.join("moving", "blob"), keep: false, memory: new SpoolMemory(0) });
  const closed = { code: "UNAVAILABLE", message: /is closed/ };
  const refused = assert.rejects(spool.write(Buffer.alloc(MIB)), closed);
  await spool.close();
  await refused;
  await assert.rejects(spool.write(Buffer.alloc(MIB)), closed);
  assert.equal(existsSync(scratch.join("moving")), false);
  assert.deepEqual(
    readdirSync("/proc/self/fd").filter((fd) => linkOf(fd).startsWith(scratch.path)),
    [],
  );
});

function linkOf(descriptor: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`);
  } catch {
    return ""; // that of the directory that was read
  }
}

test("a blob that is to be kept is a file from the start and stays", async () => {
  await using scratch = await TemporaryDirectory.create();
  const path = scratch.join("kept", "blob");
  const spool = new BlobSpool({ path, keep: true, memory: new SpoolMemory(MIB) });
  await spool.write(Buffer.from("content"));
  await spool.close();
  assert.equal(readFileSync(path, "utf8"), "content");
});

test("what the spool was given may be reused by the giver", async () => {
  const spool = new BlobSpool({ path: "/nonexistent/blob", keep: false, memory: new SpoolMemory(MIB) });
  const bytes = Buffer.from("before");
  await spool.write(bytes);
  bytes.write("after!");
  assert.equal(Buffer.from(await spool.read(0, 6)).toString(), "before");
  await spool.close();
});
