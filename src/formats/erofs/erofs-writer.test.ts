import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { applyErofsLayer, erofsListing, expectedErofsListing } from "../../../test/support/erofs-image.ts";
import { applyLayer, layerEntry, payloadDigest, placePayload, type LayerEntry } from "../../../test/support/ext4-image.ts";
import { acceptableLayer, randomLayers } from "../../../test/support/random-layers.ts";
import { MemorySource } from "../../bytes/source.ts";
import type { FilesystemWriter, LayerBlocks } from "../../tree/filesystem-writer.ts";
import { MemoryTree } from "../../tree/memory-tree.ts";
import { Ext4Reader } from "../ext4/ext4-reader.ts";
import { Ext4Tree } from "../ext4/ext4-tree.ts";
import { Ext4Writer } from "../ext4/ext4-writer.ts";
import { ErofsReader } from "./erofs-reader.ts";
import { ErofsWriter } from "./erofs-writer.ts";

const BYTES = 64 * 2 ** 20;
const UUID = Buffer.alloc(16, 1);
const SEED = 0x1ee7;
const ONE_BLOCK = [{ fileBlock: 0, blocks: 1 }];

function started(bytes = BYTES): ErofsWriter {
  const writer = ErofsWriter.format({ bytes, uuid: UUID });
  writer.beginLayer(0);
  return writer;
}

function put(writer: ErofsWriter, path: string, fields: Partial<LayerEntry> = {}): void {
  writer.apply({ kind: "put", entry: layerEntry(path, fields) });
}

/** Writes a layer into an image in memory; the payload as the support of ext4's tests has it. */
function write(image: Buffer, writer: FilesystemWriter, { metadata, payload }: LayerBlocks, layer: number): void {
  for (const block of metadata) image.set(writer.metadataBlock(block), block * 4096);
  for (const { block, payloadBlock, blocks } of payload) {
    for (let index = 0; index < blocks; index++) {
      image.fill(`layer ${layer} block ${payloadBlock + index} `, (block + index) * 4096, (block + index + 1) * 4096);
    }
  }
}

/** A reader of the tree that layers make. */
async function readerOf(...layers: (readonly LayerEntry[])[]): Promise<ErofsReader> {
  const image = Buffer.alloc(BYTES);
  const writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
  for (const [number, entries] of layers.entries()) {
    write(image, writer, applyErofsLayer(writer, placePayload(entries, number)), number);
  }
  return await ErofsReader.open(new MemorySource(image));
}

test("random layers give the tree that they give in memory and on ext4, carried or opened", async () => {
  const alphabet = {
    seconds: [0, 0, 1_700_000_000, 1_700_000_000, 2 ** 32],
    xattrs: [["user.large", Buffer.alloc(3500, "l")]] satisfies [string, Uint8Array][],
    otherTimes: false,
    paths: [],
    targets: ["z".repeat(3990)],
    hole: 2 ** 26,
  };
  const property = fc.asyncProperty(randomLayers(alphabet), async (layers) => {
    const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
    const [erofs, ext4] = [Buffer.alloc(BYTES), Buffer.alloc(BYTES)];
    let writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
    const ext4Writer = Ext4Writer.format({ bytes: BYTES, uuid: UUID, hashSeed: UUID });
    for (const [number, entries] of layers.entries()) {
      const layer = acceptableLayer(tree, entries, number);
      const reopened = number === 0 ? writer : await ErofsWriter.open(new MemorySource(erofs));
      const blocks = applyErofsLayer(writer, layer);
      if (reopened !== writer) assert.deepEqual(applyErofsLayer(reopened, layer), blocks);
      for (const block of blocks.metadata) assert.deepEqual(reopened.metadataBlock(block), writer.metadataBlock(block), `block ${block}`);
      write(erofs, writer, blocks, number);
      write(ext4, ext4Writer, applyLayer(ext4Writer, layer), number);
      writer = reopened;
    }
    const listing = await erofsListing(await ErofsReader.open(new MemorySource(erofs)));
    assert.deepEqual(listing, expectedErofsListing(tree.list()));
    assert.deepEqual(listing, await erofsListing(new Ext4Tree(await Ext4Reader.open(new MemorySource(ext4)))));
  });
  await fc.assert(property, { seed: SEED, numRuns: 8 });
});

test("sizes that no filesystem can have are refused", () => {
  for (const bytes of [0, 2 ** 20, BYTES + 512, Number.NaN, 2 ** 44]) {
    assert.throws(() => ErofsWriter.format({ bytes, uuid: UUID }), { code: "UNSUPPORTED", message: /a filesystem of/ }, String(bytes));
  }
  ErofsWriter.format({ bytes: 2 ** 44 - 4096, uuid: UUID });
});

test("a filesystem that is full says so, of data as of metadata", () => {
  const full = { code: "UNSUPPORTED", message: /of 4096 blocks is full.*--vsize/ };
  const writer = ErofsWriter.format({ bytes: 2 ** 24, uuid: UUID });
  assert.throws(() => writer.beginLayer(4096), full);
  writer.beginLayer(4095);
  put(writer, "a");
  assert.throws(() => writer.finishLayer(), full);
});

test("what no tree can hold is refused by name", () => {
  const writer = started();
  put(writer, "f");
  put(writer, "d/");
  assert.throws(() => put(writer, ""), { code: "CORRUPT", message: /root/ });
  assert.throws(() => put(writer, "f/x"), { code: "CORRUPT", message: /"f" on the way is not a directory/ });
  assert.throws(() => put(writer, "h", { type: "hardlink", link: "none" }), { code: "CORRUPT", message: /"h" points to "none"/ });
  assert.throws(() => put(writer, "h", { type: "hardlink", link: "d" }), { code: "CORRUPT", message: /"h" points to the directory "d"/ });
  for (const length of [0, 4096]) {
    assert.throws(() => put(writer, "s", { type: "symlink", link: "x".repeat(length) }), {
      code: "UNSUPPORTED",
      message: /"s" has a target of/,
    });
  }
  const xattrs = (...values: [string, Uint8Array][]): Partial<LayerEntry> => ({ xattrs: new Map(values) });
  assert.throws(() => put(writer, "x", xattrs(["user.a", Buffer.alloc(65536)])), {
    code: "UNSUPPORTED",
    message: /"x": attribute user\.a/,
  });
  const many = Array.from({ length: 5 }, (_, index): [string, Uint8Array] => [`user.${index}`, Buffer.alloc(60_000)]);
  assert.throws(() => put(writer, "x", xattrs(...many)), { code: "UNSUPPORTED", message: /"x": its attributes take/ });
  assert.throws(() => put(writer, "x", xattrs(["system.posix_acl_access", Buffer.alloc(7)])), {
    code: "CORRUPT",
    message: /"x": .*access control list/,
  });
  const runs = [{ fileBlock: 1, blocks: 1 }];
  assert.throws(() => put(writer, "sparse", { size: 2 ** 37, runs }), { code: "UNSUPPORTED", message: /"sparse" has .* map of/ });
});

test("a layer without changes has no blocks, and is the same as none", async () => {
  const writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
  const image = Buffer.alloc(BYTES);
  const first = applyErofsLayer(writer, placePayload([], 0));
  assert.deepEqual(first.metadata, [1, 0], "the root and the superblock of a new filesystem");
  write(image, writer, first, 0);
  assert.deepEqual(applyErofsLayer(writer, placePayload([], 1)), { payload: [], metadata: [] });
  const whiteouts = placePayload([layerEntry("d/.wh.none"), layerEntry("none/.wh..wh..opq")], 1);
  assert.deepEqual(applyErofsLayer(writer, whiteouts), { payload: [], metadata: [] });
  const opened = await ErofsWriter.open(new MemorySource(image));
  assert.deepEqual(applyErofsLayer(opened, placePayload([], 1)), { payload: [], metadata: [] });
  const layer = placePayload([layerEntry("a")], 2);
  assert.deepEqual(applyErofsLayer(opened, layer), applyErofsLayer(writer, layer));
});

test("payload of files that the layer itself replaces or removes is not referred to", () => {
  const file = (path: string): LayerEntry => layerEntry(path, { size: 12288, runs: [{ fileBlock: 0, blocks: 3 }] });
  const writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
  const link = layerEntry("kept", { type: "hardlink", link: "d/linked" });
  const entries = [file("f"), file("g"), file("f"), file("d/gone"), file("d/linked"), link, layerEntry("d")];
  const { payload } = applyErofsLayer(writer, placePayload(entries, 0));
  assert.deepEqual(
    payload.map(({ block, payloadBlock, blocks }) => [block, payloadBlock, blocks]),
    [
      [1 + 3, 3, 6],
      [1 + 12, 12, 3],
    ],
  );
});

test("a mount's first blocks come last", () => {
  const writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
  const crowd = Array.from({ length: 400 }, (_, index) => layerEntry(`${"name-".repeat(10)}${index}`));
  const { metadata } = applyErofsLayer(writer, placePayload(crowd, 0));
  const first = Math.min(...metadata.slice(0, -1));
  assert.deepEqual(metadata.slice(-2), [first, 0], "the root's inode and the superblock");
  assert.equal(new Set(metadata).size, metadata.length);
  assert.ok(metadata.length > 10);
});

test("most inodes of one time are compact, and attributes of several inodes are stored once", async () => {
  const value = Buffer.alloc(500, "v");
  const bytesOf = (files: number, fields: (index: number) => Partial<LayerEntry>): number => {
    const writer = ErofsWriter.format({ bytes: BYTES, uuid: UUID });
    const entries = Array.from({ length: files }, (_, index) => layerEntry(`d/${index}`, fields(index)));
    return applyErofsLayer(writer, placePayload(entries, 0)).metadata.length * 4096;
  };
  const plain = bytesOf(1000, () => ({ mtime: { seconds: 1_700_000_000, nanoseconds: 0 } }));
  const timed = bytesOf(1000, (seconds) => ({ mtime: { seconds, nanoseconds: 1 } }));
  assert.ok(timed - plain >= 1000 * 32 - 4096, `${timed} and ${plain} bytes`);
  const labelled = bytesOf(1000, () => ({ xattrs: new Map([["user.a", value]]) }));
  assert.ok(labelled - plain < 1000 * 32 + 8192, `${labelled} and ${plain} bytes`);
});

test("directories, symlinks and attributes of sizes around a block are read back", async () => {
  const entries: LayerEntry[] = [];
  for (const names of [1, 2, 15, 16, 17, 30, 31, 32, 5000]) {
    for (let index = 0; index < names; index++) entries.push(layerEntry(`d${names}/${"n".repeat(240)}${String(index).padStart(4, "0")}`));
  }
  for (const bytes of [1, 59, 3967, 3968, 3999, 4000, 4031, 4032, 4033, 4095]) {
    entries.push(layerEntry(`l${bytes}`, { type: "symlink", link: "t".repeat(bytes) }));
    entries.push(layerEntry(`x${bytes}`, { xattrs: new Map([["user.a", Buffer.alloc(bytes, "v")]]), size: 5, runs: ONE_BLOCK }));
    entries.push(
      layerEntry(`y${bytes}`, { type: "symlink", link: "t".repeat(bytes), xattrs: new Map([["trusted.a", Buffer.alloc(bytes)]]) }),
    );
  }
  const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
  const { entries: placed } = placePayload(entries, 0);
  tree.apply(placed.map((entry) => ({ kind: "put", entry })));
  assert.deepEqual(await erofsListing(await readerOf(entries)), expectedErofsListing(tree.list()));
});

test("a hard link into what it replaces keeps its file", async () => {
  const reader = await readerOf([layerEntry("d/f", { size: 3, runs: ONE_BLOCK }), layerEntry("d", { type: "hardlink", link: "d/f" })]);
  const [{ name, inode }] = await reader.list(reader.root);
  assert.deepEqual([name, (await reader.inode(inode)).type, (await reader.inode(inode)).links], ["d", "file", 1]);
});

test("100,000 files are written in linear time into a hundred bytes each", () => {
  const writer = ErofsWriter.format({ bytes: 2 ** 34, uuid: UUID });
  const count = 100_000;
  writer.beginLayer(count);
  for (let index = 0; index < count; index++) {
    const mtime = { seconds: 1_700_000_000 + (index % 997), nanoseconds: 0 };
    put(writer, `lib/package-${index % 997}/file-with-name-${index}`, { size: 3000, payloadBlock: index, runs: ONE_BLOCK, mtime });
  }
  const { metadata, payload } = writer.finishLayer();
  assert.deepEqual(payload, [{ block: 1, payloadBlock: 0, blocks: count }]);
  assert.ok(metadata.length * 4096 < count * 110, `${(metadata.length * 4096) / count} bytes for each`);
});
