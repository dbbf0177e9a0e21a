import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../../src/errors.ts";
import { Ext4Writer } from "../../src/formats/ext4/ext4-writer.ts";
import type { FileRun } from "../../src/tree/filesystem-writer.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { joinPath } from "../../src/tree/path.ts";
import {
  applyLayer,
  Ext4Image,
  expectedListing,
  layerEntry,
  payloadDigest,
  placePayload,
  readerListing,
  type LayerEntry,
} from "../support/ext4-image.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const SEED = 20_240_611;
const IMAGE_BYTES = 300 * 2 ** 20; // three groups
const FORMAT = { bytes: IMAGE_BYTES, uuid: Buffer.from("0123456789abcdef"), hashSeed: Buffer.from("fedcba9876543210") };

const name = fc.constantFrom("a", "b", "c", "d", "e", "\xff\x80 \n", "n".repeat(255));
const path = fc.oneof(
  { weight: 20, arbitrary: fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join("/")) },
  { weight: 1, arbitrary: fc.constantFrom("lost+found", "lost+found/a", "lost+found/b/c") },
);
const time = fc.record({
  seconds: fc.constantFrom(-(2 ** 40), -(2 ** 31), -1, 0, 1_700_000_000, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 34 - 2 ** 31 - 1, 2 ** 40),
  nanoseconds: fc.constantFrom(0, 1, 500_000_000, 999_999_999),
});
const owner = fc.constantFrom(0, 1000, 65535, 65536, 2 ** 32 - 2);
const ACL = Buffer.from("0200000001000600ffffffff02000700e803000004000400ffffffff10000700ffffffff20000400ffffffff", "hex");
const CAPABILITY = Buffer.from("0100000200200000000000000000000000000000", "hex");
const xattrs = fc.subarray<[string, Uint8Array]>([
  ["security.capability", CAPABILITY],
  ["system.posix_acl_access", ACL],
  ["system.posix_acl_default", ACL],
  ["trusted.empty", Buffer.alloc(0)],
  ["trusted.overlay.origin", Buffer.alloc(30, "o")],
  ["user.\xe4", Buffer.from("umlaut")],
  ["user.block", Buffer.alloc(900, "b")],
  ["user.huge", Buffer.alloc(65536, "h")],
  ["user.large", Buffer.alloc(3500, "l")],
  ["user.larger", Buffer.alloc(3600, "L")],
]);
const someXattrs = fc.oneof({ weight: 3, arbitrary: fc.constant<[string, Uint8Array][]>([]) }, { weight: 1, arbitrary: xattrs });
const metadata = fc
  .record({ mode: fc.nat(0o7777), uid: owner, gid: owner, mtime: time, atime: time, ctime: time, xattrs: someXattrs })
  .map((fields) => ({ ...fields, xattrs: new Map(fields.xattrs) }));
const runs = fc.oneof(
  fc.constant<FileRun[]>([]),
  fc.constant<FileRun[]>([{ fileBlock: 0, blocks: 1 }]),
  fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 5 })), { maxLength: 12 }).map(runsOf),
  fc.integer({ min: 5, max: 700 }).map((count) => runsOf(Array.from({ length: count }, () => [1, 1] as const))),
);

function runsOf(gaps: readonly (readonly [hole: number, blocks: number])[]): FileRun[] {
  const made: FileRun[] = [];
  let end = 0;
  for (const [hole, blocks] of gaps) {
    const last = made.at(-1);
    if (hole === 0 && last) made[made.length - 1] = { ...last, blocks: last.blocks + blocks };
    else made.push({ fileBlock: end + hole, blocks });
    end += hole + blocks;
  }
  return made;
}

type Fields = Partial<LayerEntry>;
const file = fc
  .tuple(path, metadata, runs, fc.constantFrom(0, 1, 100, 4095, 2 ** 33), fc.nat(4095))
  .map(([at, fields, own, beyond, short]) => {
    const last = own.at(-1);
    const size = last ? (last.fileBlock + last.blocks) * 4096 + (beyond > 4095 ? beyond : -short) : beyond;
    return [layerEntry(at, { ...fields, type: "file", runs: own, size })];
  });
const directory = fc.tuple(fc.oneof(path, fc.constant("")), metadata).map(([at, fields]) => [layerEntry(`${at}/`, fields as Fields)]);
const target = fc.oneof(path, fc.constantFrom("/a", "..", "../../b", "x".repeat(59), "x".repeat(60), "y/".repeat(500), "z".repeat(4095)));
const symlink = fc.tuple(path, metadata, target).map(([at, fields, link]) => [layerEntry(at, { ...fields, type: "symlink", link })]);
const hardlink = fc.tuple(path, path).map(([at, link]) => [layerEntry(at, { type: "hardlink", link })]);
const number = fc.tuple(fc.constantFrom(0, 1, 5, 255, 256, 4095), fc.constantFrom(0, 3, 255, 256, 2 ** 20 - 1));
const device = fc
  .tuple(path, metadata, fc.constantFrom("character" as const, "block" as const, "fifo" as const), number)
  .map(([at, fields, type, [major, minor]]) => [layerEntry(at, { ...fields, type, ...(type !== "fifo" && { major, minor }) })]);
const whiteout = path
  .map((at) => [layerEntry(at.replace(/[^/]+$/, ".wh.$&").slice(-4000))])
  .filter(([{ path: at }]) => !/[^/]{256}/.test(at));
const opaque = fc
  .oneof({ weight: 4, arbitrary: path }, { weight: 1, arbitrary: fc.constant("") })
  .map((at) => [layerEntry(joinPath(at, ".wh..wh..opq"))]);
const crowd = fc
  .tuple(path, fc.constantFrom("f", "crowded-".repeat(20)), fc.integer({ min: 1, max: 400 }), fc.nat(400))
  .map(([at, prefix, count, from]) => Array.from({ length: count }, (_, index) => layerEntry(`${at}/${prefix}${from + index}`)));
const thinned = fc
  .tuple(path, fc.constantFrom("f", "crowded-".repeat(20)), fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 5 }))
  .map(([at, prefix, count, step]) => Array.from({ length: count }, (_, index) => layerEntry(`${at}/.wh.${prefix}${index * step}`)));

const item = fc.oneof(
  { weight: 6, arbitrary: file },
  { weight: 5, arbitrary: directory },
  { weight: 4, arbitrary: symlink },
  { weight: 4, arbitrary: hardlink },
  { weight: 3, arbitrary: device },
  { weight: 4, arbitrary: whiteout },
  { weight: 2, arbitrary: opaque },
  { weight: 3, arbitrary: crowd },
  { weight: 1, arbitrary: thinned },
);
const layer = fc.array(item, { maxLength: 25 }).map((items) => items.flat());

/** Applies what a tree can hold of a layer to the tree, and returns that. */
function acceptable(tree: MemoryTree<LayerEntry, string>, entries: readonly LayerEntry[], number: number): ReturnType<typeof placePayload> {
  const accepted = new Set<LayerEntry>();
  const placed = placePayload(entries, number);
  for (const change of layerChanges(placed.entries)) {
    try {
      tree.apply([change]);
      if (change.kind === "put") accepted.add(change.entry);
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
    }
  }
  const isWhiteout = (entry: LayerEntry): boolean => /(^|\/)\.wh\.[^/]*$/.test(entry.path);
  return { entries: placed.entries.filter((entry) => accepted.has(entry) || isWhiteout(entry)), payloadBlocks: placed.payloadBlocks };
}

test("random layers: e2fsck, the kernel and our reader agree with a tree in memory after every layer", async () => {
  await using temporary = await TemporaryDirectory.create();
  let runNumber = 0;
  const property = fc.asyncProperty(fc.array(layer, { minLength: 1, maxLength: 5 }), async (layers) => {
    const image = Ext4Image.create(temporary.join(`${runNumber++}.img`), IMAGE_BYTES);
    try {
      const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
      let writer = Ext4Writer.format(FORMAT);
      for (const [number, entries] of layers.entries()) {
        const wanted = acceptable(tree, entries, number);
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
