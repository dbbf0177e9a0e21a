import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { openOverlaybdLayer } from "../../src/device/layer.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { TarReader } from "../../src/tar/tar-reader.ts";
import { assertTree, load } from "../support/recorded-tree.ts";

/** The layer file inside of the archive that the base layer is distributed as. */
function baseLayer(): Buffer {
  const chunks: Uint8Array[] = [];
  const reader = new TarReader({ entry: () => {}, data: (bytes) => chunks.push(Uint8Array.from(bytes)), entryEnd: () => {} }, "ext4_64");
  reader.write(gunzipSync(load("lsmt/ext4_64.tar.gz")));
  reader.close();
  return Buffer.concat(chunks);
}

async function stacked(blobs: readonly Buffer[]): Promise<ByteSource> {
  const layers = blobs.map(async (blob, index) => {
    const { lsmt } = await openOverlaybdLayer(new MemorySource(blob, `layer ${index}`), { declared: true, keepPinned: true });
    return lsmt;
  });
  return stackLayers(await Promise.all(layers));
}

const STACKS: readonly (readonly [what: string, blobs: () => Buffer[], tree: string])[] = [
  ["an append-only layer, LZ4", () => [load("lsmt/append/lz4-4k.commit")], "small-tree"],
  ["an append-only layer, zstd in a tar", () => [load("lsmt/append/zstd-4k-tar.commit")], "small-tree"],
  ["an append-only layer, uncompressed", () => [load("lsmt/append/plain.commit.zst")], "small-tree"],
  ["a sparse layer, LZ4 in a tar", () => [load("lsmt/sparse/lz4-4k-tar.commit")], "small-tree"],
  ["a sealed sparse layer, committed", () => [load("lsmt/sparse/commit-sealed-lz4.commit")], "small-tree"],
  ["one layer with its own filesystem", () => stackOf("stack", 1), "stack-tree0"],
  ["two layers", () => stackOf("stack", 2), "stack-tree1"],
  ["three layers", () => stackOf("stack", 3), "stack-tree"],
  ["one layer on the base layer", () => [baseLayer(), ...stackOf("base", 1)], "base-tree0"],
  ["two layers on the base layer", () => [baseLayer(), ...stackOf("base", 2)], "base-tree1"],
  ["three layers on the base layer", () => [baseLayer(), ...stackOf("base", 3)], "base-tree2"],
];

function stackOf(name: string, layers: number): Buffer[] {
  return Array.from({ length: layers }, (_, index) => load(`overlaybd/${name}-layer${index}.commit.zst`));
}

for (const [what, blobs, tree] of STACKS) {
  test(`the tree of ${what} made by overlaybd is the one that the kernel shows`, async () => {
    await assertTree(await stacked(blobs()), tree, { inodes: true });
  });
}
