import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Ext4Writer } from "../../src/formats/ext4/ext4-writer.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { applyLayer, Ext4Image, expectedListing, payloadDigest, readerListing, type LayerEntry } from "../support/ext4-image.ts";
import { acceptableLayer, randomLayers } from "../support/random-layers.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const SEED = 20_240_611;
const IMAGE_BYTES = 300 * 2 ** 20; // three groups
const FORMAT = { bytes: IMAGE_BYTES, uuid: Buffer.from("0123456789abcdef"), hashSeed: Buffer.from("fedcba9876543210") };

const LAYERS = randomLayers({
  seconds: [-(2 ** 40), -(2 ** 31), -1, 0, 1_700_000_000, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 34 - 2 ** 31 - 1, 2 ** 40],
  otherTimes: true,
  xattrs: [
    ["trusted.overlay.origin", Buffer.alloc(30, "o")],
    ["user.block", Buffer.alloc(900, "b")],
    ["user.huge", Buffer.alloc(65536, "h")],
    ["user.large", Buffer.alloc(3500, "l")],
    ["user.larger", Buffer.alloc(3600, "L")],
  ],
  paths: ["lost+found", "lost+found/a", "lost+found/b/c"],
  targets: ["x".repeat(59), "x".repeat(60)],
  hole: 2 ** 33,
});

test("random layers: e2fsck, the kernel and our reader agree with a tree in memory after every layer", async () => {
  await using temporary = await TemporaryDirectory.create();
  let runNumber = 0;
  const property = fc.asyncProperty(LAYERS, async (layers) => {
    const image = Ext4Image.create(temporary.join(`${runNumber++}.img`), IMAGE_BYTES);
    try {
      const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
      let writer = Ext4Writer.format(FORMAT);
      for (const [number, entries] of layers.entries()) {
        const wanted = acceptableLayer(tree, entries, number);
        const reopened = number === 0 ? Ext4Writer.format(FORMAT) : await Ext4Writer.open(image.source());
        const blocks = applyLayer(writer, wanted);
        const again = applyLayer(reopened, wanted);
        assert.deepEqual(again, blocks, "blocks of the carried and the re-opened filesystem");
        for (const block of blocks.metadata) assert.deepEqual(reopened.metadataBlock(block), writer.metadataBlock(block), `block ${block}`);
        image.write(writer, blocks, number);
        await image.assertClean(`after layer ${number}`);
        const expected = expectedListing(tree.list());
        assert.deepEqual(await readerListing(await image.openReader()), expected, `reader after layer ${number}`);
        if (number === layers.length - 1) assert.deepEqual(await image.kernelListing(), expected, "kernel");
        writer = number % 2 === 0 ? reopened : writer;
      }
    } finally {
      image.close();
    }
  });
  await fc.assert(property, { seed: SEED, numRuns: 22 });
});
