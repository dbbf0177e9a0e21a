import assert from "node:assert/strict";
import { test } from "node:test";
import { MemorySource } from "../../bytes/source.ts";
import { LazyError } from "../../errors.ts";
import { applyLayer, layerEntry, placePayload, readerListing, type LayerEntry } from "../../../test/support/ext4-image.ts";
import { lookupPath } from "../../tree/filesystem-reader.ts";
import { Ext4Reader } from "./ext4-reader.ts";
import { Ext4Tree } from "./ext4-tree.ts";
import { Ext4Writer } from "./ext4-writer.ts";
import { RO_COMPAT } from "./layout.ts";

const BYTES = 16 * 2 ** 20;
const SEED = 0x1ee7;
const ENTRIES: readonly LayerEntry[] = [
  ...Array.from({ length: 300 }, (_, index) => layerEntry(`many/${"name-".repeat(10)}${index}`)),
  layerEntry("a/b/c/", {
    xattrs: new Map([
      ["user.block", Buffer.alloc(1500, "b")],
      ["user.huge", Buffer.alloc(9000, "h")],
    ]),
  }),
  layerEntry("pieces", { size: 2 ** 24, runs: Array.from({ length: 400 }, (_, index) => ({ fileBlock: index * 3, blocks: 1 })) }),
  layerEntry("a/short", { type: "symlink", link: "b/c" }),
  layerEntry("a/long", { type: "symlink", link: "/a/".padEnd(500, "./") }),
  layerEntry("file", { size: 5, runs: [{ fileBlock: 0, blocks: 1 }], xattrs: new Map([["user.small", Buffer.from("s")]]) }),
];

/** An image in memory and the numbers of its metadata blocks. */
function makeImage(): { image: Buffer; metadata: readonly number[] } {
  const writer = Ext4Writer.format({ bytes: BYTES, uuid: Buffer.alloc(16, 1), hashSeed: Buffer.alloc(16, 2) });
  const { metadata } = applyLayer(writer, placePayload(ENTRIES, 0));
  const image = Buffer.alloc(BYTES);
  for (const block of metadata) image.set(writer.metadataBlock(block), block * 4096);
  return { image, metadata };
}

async function readAll(image: Buffer): Promise<number> {
  const reader = await Ext4Reader.open(new MemorySource(image, "image"));
  const seen = new Set<number>();
  const pending = [2];
  for (let number = pending.pop(); number !== undefined; number = pending.pop()) {
    if (seen.has(number)) continue; // damaged directories can contain themselves
    seen.add(number);
    const inode = await reader.inode(number);
    await reader.xattrs(number);
    const kind = inode.mode & 0xf000;
    if (kind === 0x4000) for (const entry of await reader.list(number)) pending.push(entry.inode);
    if (kind === 0xa000) await reader.linkTarget(number);
    if (kind === 0x8000) {
      const file = await reader.file(number);
      await file.read(0, Math.min(file.size, 65536));
    }
  }
  return seen.size;
}

/** A small generator of its own (xorshift), so that a seed says everything. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

async function survives(image: Buffer, metadata: readonly number[], rounds: number, next: (below: number) => number): Promise<number> {
  let refused = 0;
  for (let round = 0; round < rounds; round++) {
    const undo: [number, number][] = [];
    for (let flip = 1 + next(4); flip > 0; flip--) {
      const block = metadata[next(metadata.length)];
      const at = block * 4096 + (block === 0 ? 1024 + next(1024) : next(next(2) ? 4096 : 64));
      undo.push([at, image[at]]);
      image[at] ^= 1 << next(8);
    }
    try {
      await readAll(image);
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      refused++;
    }
    for (const [at, byte] of undo.toReversed()) image[at] = byte;
  }
  return refused;
}

test("every flipped bit of metadata is found by a checksum, or does not matter", async () => {
  const { image, metadata } = makeImage();
  const whole = await readerListing(await Ext4Reader.open(new MemorySource(image)));
  const next = random(SEED);
  let refused = 0;
  for (let round = 0; round < 60; round++) {
    const at = metadata[next(metadata.length)] * 4096 + next(4096);
    const byte = image[at];
    image[at] ^= 1 << next(8);
    try {
      assert.deepEqual(await readerListing(await Ext4Reader.open(new MemorySource(image))), whole, `byte ${at}, seed ${SEED}`);
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      refused++;
    }
    image[at] = byte;
  }
  assert.ok(refused > 10, `${refused} of 60 refused`);
});

test("damage without checksums ends in an error or a result, never in a hang or another error", async () => {
  const { image, metadata } = makeImage();
  assert.equal(await readAll(image), ENTRIES.length + 4, "and the root, many, a, a/b");
  image.writeUInt32LE(image.readUInt32LE(1024 + 0x64) & ~RO_COMPAT.metadataCsum, 1024 + 0x64);
  const refused = await survives(image, metadata, 250, random(SEED));
  assert.ok(refused > 15, `${refused} of 250 refused, seed ${SEED}`);
});

test("paths are found through symlinks, and stay inside of the filesystem", async () => {
  const reader = new Ext4Tree(await Ext4Reader.open(new MemorySource(makeImage().image, "image")));
  const directory = await lookupPath(reader, "/a/b/c");
  for (const path of ["a/short", "a/short/../c/.", "/../a/b/c/../../short/"]) assert.equal(await lookupPath(reader, path), directory, path);
  assert.equal(await lookupPath(reader, "a/long/b/c"), directory);
  await assert.rejects(lookupPath(reader, "a/none/x"), { code: "NOT_FOUND", message: /"a\/none\/x": there is no "none"/ });
});

test("what is too short or something else is refused", async () => {
  await assert.rejects(Ext4Reader.open(new MemorySource(Buffer.alloc(100))), { code: "CORRUPT", message: /100 bytes are too few/ });
  await assert.rejects(Ext4Reader.open(new MemorySource(Buffer.alloc(4096))), { code: "CORRUPT", message: /magic 0x0, expected 0xef53/ });
  const { image } = makeImage();
  await assert.rejects(Ext4Reader.open(new MemorySource(image.subarray(0, BYTES / 2))), { code: "CORRUPT", message: /counts 4096 blocks/ });
});
