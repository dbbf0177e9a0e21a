import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { tarArchive, type TarMember } from "../../test/support/tar-builder.ts";
import { digestOf } from "../oci/digest.ts";
import { scanLayer } from "./layer-scan.ts";

const SEED = 7;
const BLOCK = 4096;

/** Cuts bytes into pieces, as they might come from a network. */
async function* pieces(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

/** Files with up to four extents, in any order of sizes. */
const members = fc
  .array(fc.array(fc.record({ gap: fc.nat(9000), length: fc.integer({ min: 1, max: 9000 }) }), { maxLength: 4 }), { maxLength: 6 })
  .map((files) =>
    files.map((parts, file): TarMember & { content: Buffer } => {
      let size = 0;
      const extents = parts.map(({ gap, length }) => {
        const extent = { offset: size + gap, length };
        size += gap + length;
        return extent;
      });
      const content = Buffer.alloc(size + (parts.length > 0 ? 100 : 0));
      for (const { offset, length } of extents) content.fill(file + 65, offset, offset + length);
      const data = Buffer.concat(extents.map(({ offset, length }) => content.subarray(offset, offset + length)));
      return { name: `f${file}`, data, sparse: { size: content.length, extents }, content };
    }),
  );

test("every file's blocks stand in the payload where its entry says, padded with zeros, whatever the pieces", async () => {
  const property = fc.asyncProperty(members, fc.integer({ min: 1, max: 70_000 }), async (files, pieceBytes) => {
    const tar = tarArchive(files);
    const payload: Uint8Array[] = [];
    const scan = await scanLayer(
      pieces(tar, pieceBytes),
      "layer",
      async (bytes) => void payload.push(bytes),
      () => new ArrayBuffer(1 << 20),
      { payload: true, indexed: false },
    );
    const blocks = Buffer.concat(payload);
    assert.equal(blocks.length, scan.payloadBlocks * BLOCK);
    assert.equal(scan.diffId, digestOf(tar));
    for (const [index, entry] of [...scan.entries].entries()) {
      const content = Buffer.alloc(Math.ceil(entry.size / BLOCK) * BLOCK);
      let block = entry.payloadBlock;
      for (const run of entry.runs) {
        blocks.copy(content, run.fileBlock * BLOCK, block * BLOCK, (block + run.blocks) * BLOCK);
        block += run.blocks;
      }
      assert.ok(content.subarray(0, entry.size).equals(files[index].content), entry.path);
      assert.ok(content.subarray(entry.size).every((byte) => byte === 0));
    }
  });
  await fc.assert(property, { seed: SEED, numRuns: 150 });
});
