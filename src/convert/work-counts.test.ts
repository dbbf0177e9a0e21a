import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";
import { convertLayout, convertStores } from "../../test/support/convert.ts";
import { startDockerRegistry } from "../../test/support/docker-registry.ts";
import { startHostileRegistry } from "../../test/support/hostile-registry.ts";
import { copyImage, layerOf, writeImage } from "../../test/support/image-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { countWork } from "../../test/support/work-counts.ts";
import { openLayoutStore } from "../image-layout/layout-store.ts";
import { openRegistryStore } from "../registry/registry-store.ts";
import { ScanThreads } from "./scan-threads.ts";

/*
 * What a conversion costs in figures that no machine's speed changes. A limit that is passed is a reason to look at what changed, not to
 * raise the limit.
 */

const MIB = 1 << 20;
const SCRIPT = new URL("../../test/support/counting-scan-worker.ts", import.meta.url);
const work = countWork();

function file(name: string, mebibytes: number): { name: string; data: Buffer } {
  const data = randomFillSync(Buffer.alloc(mebibytes * MIB));
  // Half of every block can be compressed.
  for (let at = 0; at < data.length; at += 4096) data.fill(0, at, at + 2048);
  return { name, data };
}

const LAYERS = [layerOf([file("a", 24), file("b", 7)]), layerOf([file("c", 9)]), layerOf([{ name: "d", data: Buffer.from("d") }])];
const TAR_BYTES = 40 * MIB;
const STORED_BYTES = LAYERS.reduce((sum, { blob }) => sum + blob.length, 0);

for (const count of [1, 2]) {
  test(`${count} threads copy, allocate and hash what they must, and send few messages`, async (t) => {
    await using scratch = await TemporaryDirectory.create();
    await writeImage(scratch.join("source"), "image", { layers: LAYERS });
    const threads = new ScanThreads({ threads: count, script: SCRIPT });
    const before = work();
    const { images } = await convertLayout(scratch.join("source"), "image", scratch.join("converted"), { threads });
    const after = work();
    await threads.close();
    const blobBytes = images[0].layers.reduce((sum, { converted }) => sum + converted.size, 0);
    const perByte = (name: keyof typeof after): number => (after[name] - before[name]) / TAR_BYTES;
    const messages = (after.messages - before.messages) / (TAR_BYTES / MIB);
    t.diagnostic(
      `a byte of tar: ${perByte("bytesCopied").toFixed(3)} copied, ${perByte("bytesAllocated").toFixed(3)} allocated; a MiB: ${messages} messages`,
    );
    const hashed = after.bytesHashed - before.bytesHashed;
    assert.ok(hashed < (STORED_BYTES + TAR_BYTES + blobBytes) * 1.001, `${hashed} bytes hashed`);
    assert.ok(perByte("bytesCopied") < 5, `${perByte("bytesCopied")} bytes copied for a byte of tar`);
    assert.ok(perByte("bytesAllocated") < 3.1, `${perByte("bytesAllocated")} bytes allocated for a byte of tar`);
    assert.ok(messages < 5.5, `${messages} messages for a MiB of tar`);
  });
}

test("metadata goes into a blob in buffers that are used again", async (t) => {
  await using scratch = await TemporaryDirectory.create();
  const files = Array.from({ length: 60_000 }, (_, at) => ({ name: `file-${at}` }));
  await writeImage(scratch.join("source"), "image", { layers: [layerOf(files)] });
  const threads = new ScanThreads({ threads: 2, script: SCRIPT });
  const before = work();
  await convertLayout(scratch.join("source"), "image", scratch.join("converted"), { threads });
  const after = work();
  await threads.close();
  const perInode = (after.bytesAllocated - before.bytesAllocated) / files.length;
  t.diagnostic(`an inode of 256 bytes: ${perInode.toFixed(0)} allocated`);
  assert.ok(perInode < 700, `${perInode} bytes allocated for an inode`);
});

test("a conversion from repository to repository makes few requests, however large the layers", async () => {
  await using scratch = await TemporaryDirectory.create();
  await using registry = await startDockerRegistry();
  await using front = await startHostileRegistry(registry.host);
  await writeImage(scratch.join("source"), "image", { layers: LAYERS });
  const source = openRegistryStore({ kind: "registry", host: front.host, repository: "source" });
  await copyImage(await openLayoutStore(scratch.join("source")), { tag: "image" }, source, "image");
  front.reset();
  const destination = openRegistryStore({ kind: "registry", host: front.host, repository: "converted" });
  await convertStores(source, destination, "image", { directory: scratch.join("work") });
  await Promise.all([source.close(), destination.close()]);
  const counted = new Map<string, number>();
  for (const { method, url } of front.seen) {
    const request = `${method} ${/manifests|blobs|tags/.exec(url)?.[0]}`;
    counted.set(request, (counted.get(request) ?? 0) + 1);
  }
  assert.deepEqual(Object.fromEntries(counted), {
    "GET manifests": 1,
    "GET blobs": LAYERS.length + 1,
    "GET tags": 1,
    // Of the config alone: of what comes into a repository without tags nothing else is looked for.
    "HEAD blobs": 1,
    "POST blobs": LAYERS.length + 1,
    "PATCH blobs": LAYERS.length,
    "PUT blobs": LAYERS.length + 1,
    "PUT manifests": 1,
  });
});
