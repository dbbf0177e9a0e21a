import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ErofsWriter } from "../../src/formats/erofs/erofs-writer.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { applyErofsLayer, ErofsImage, expectedErofsListing } from "../support/erofs-image.ts";
import { payloadDigest, type LayerEntry } from "../support/ext4-image.ts";
import { acceptableLayer, randomLayers } from "../support/random-layers.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const SEED = 20_261_121;
const FORMAT = { bytes: 2 ** 30, uuid: Buffer.from("0123456789abcdef") };
const ALPHABET = {
  seconds: [-(2 ** 31), -1, 0, 0, 1_700_000_000, 1_700_000_000, 2 ** 31, 2 ** 32, 2 ** 33],
  xattrs: [
    ["trusted.overlay.origin", Buffer.alloc(30, "o")],
    ["user.block", Buffer.alloc(900, "b")],
    ["user.large", Buffer.alloc(3900, "l")],
    ["user.huge", Buffer.alloc(65535, "h")],
  ] satisfies [string, Uint8Array][],
  otherTimes: false,
  paths: [],
  targets: ["z".repeat(3990)],
  hole: 2 ** 26,
};

test("random layers: fsck.erofs, the kernel and our reader agree with a tree in memory after every layer", async () => {
  await using temporary = await TemporaryDirectory.create();
  let runNumber = 0;
  const property = fc.asyncProperty(randomLayers(ALPHABET), async (layers) => {
    const image = ErofsImage.create(temporary.join(`${runNumber++}.img`), FORMAT.bytes);
    try {
      const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
      let writer = ErofsWriter.format(FORMAT);
      for (const [number, entries] of layers.entries()) {
        const wanted = acceptableLayer(tree, entries, number);
        const reopened = number === 0 ? ErofsWriter.format(FORMAT) : await ErofsWriter.open(image.source());
        const blocks = applyErofsLayer(writer, wanted);
        assert.deepEqual(applyErofsLayer(reopened, wanted), blocks, "blocks of the carried and the re-opened filesystem");
        for (const block of blocks.metadata) assert.deepEqual(reopened.metadataBlock(block), writer.metadataBlock(block), `block ${block}`);
        image.write(writer, blocks, number);
        await image.assertClean(`after layer ${number}`);
        const expected = expectedErofsListing(tree.list());
        assert.deepEqual(await image.listing(), expected, `reader after layer ${number}`);
        if (number === layers.length - 1) assert.deepEqual(await image.kernelListing(), expected, "kernel");
        writer = number % 2 === 0 ? reopened : writer;
      }
    } finally {
      image.close();
    }
  });
  await fc.assert(property, { seed: SEED, numRuns: 15 });
});
