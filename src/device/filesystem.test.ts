import assert from "node:assert/strict";
import { test } from "node:test";
import { applyErofsLayer } from "../../test/support/erofs-image.ts";
import { applyLayer, layerEntry, placePayload } from "../../test/support/ext4-image.ts";
import { MemorySource } from "../bytes/source.ts";
import { ErofsWriter } from "../formats/erofs/erofs-writer.ts";
import { Ext4Writer } from "../formats/ext4/ext4-writer.ts";
import type { FilesystemWriter } from "../tree/filesystem-writer.ts";
import { lookupPath } from "../tree/filesystem-reader.ts";
import { probeFilesystem } from "./filesystem.ts";
import { openFilesystem } from "./open-filesystem.ts";

const BYTES = 16 * 2 ** 20;
const UUID = Buffer.alloc(16, 1);
const LAYER = placePayload(
  [layerEntry("a/b", { size: 5, runs: [{ fileBlock: 0, blocks: 1 }] }), layerEntry("link", { type: "symlink", link: "a" })],
  0,
);

function deviceOf(writer: FilesystemWriter, metadata: readonly number[]): MemorySource {
  const image = Buffer.alloc(BYTES);
  for (const block of metadata) image.set(writer.metadataBlock(block), block * 4096);
  return new MemorySource(image, "device");
}

function ext4Device(): MemorySource {
  const writer = Ext4Writer.format({ bytes: BYTES, uuid: UUID, hashSeed: UUID });
  return deviceOf(writer, applyLayer(writer, LAYER).metadata);
}

function erofsDevice(): MemorySource {
  const writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
  return deviceOf(writer, applyErofsLayer(writer, LAYER).metadata);
}

test("a device says which file system it holds", async () => {
  assert.deepEqual(await probeFilesystem(ext4Device()), { type: "ext4", sectorBytes: 4096, needsRecovery: false });
  assert.deepEqual(await probeFilesystem(erofsDevice()), { type: "erofs", sectorBytes: 4096, needsRecovery: false });
  for (const filler of [0, 0xff]) {
    await assert.rejects(probeFilesystem(new MemorySource(Buffer.alloc(8192, filler))), {
      code: "UNSUPPORTED",
      message: /expected ext4's 0xef53, or EROFS's 0xe0f5e1e2 at 1024/,
    });
  }
});

test("either file system is read in the same way", async () => {
  for (const device of [ext4Device(), erofsDevice()]) {
    const reader = await openFilesystem(device);
    const number = await lookupPath(reader, "link/b");
    const { type, mode, size } = await reader.inode(number);
    assert.deepEqual([type, mode, size], ["file", 0o644, 5]);
    const [{ offset, length, deviceOffset }, ...others] = await reader.extents(number);
    assert.deepEqual([offset, length, deviceOffset % 4096, others], [0, 5, 0, []]);
    await assert.rejects(reader.extents(reader.root), { code: "CORRUPT", message: /is not a regular file/ });
  }
});
