import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Ext4Writer } from "../../src/formats/ext4/ext4-writer.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { run } from "../support/command.ts";
import {
  applyLayer,
  Ext4Image,
  expectedListing,
  layerEntry,
  listedEntries,
  payloadDigest,
  placePayload,
  readerListing,
  type LayerEntry,
} from "../support/ext4-image.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const IDENTITY = { uuid: Buffer.from("0123456789abcdef"), hashSeed: Buffer.from("fedcba9876543210") };
const GIB = 2 ** 30;

let temporary: TemporaryDirectory;
let images = 0;
before(async () => void (temporary = await TemporaryDirectory.create()));
after(async () => await temporary[Symbol.asyncDispose]());

/** Applies layers one after the other; e2fsck is content after each, our reader and the kernel show the tree in memory in the end. */
async function holds(bytes: number, layers: readonly (readonly LayerEntry[])[], { list = true } = {}): Promise<Ext4Writer> {
  const image = Ext4Image.create(temporary.join(`${images++}.img`), bytes);
  try {
    const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
    let writer = Ext4Writer.format({ ...IDENTITY, bytes });
    for (const [number, entries] of layers.entries()) {
      const layer = placePayload(entries, number);
      tree.apply(layerChanges(layer.entries));
      if (number > 0) writer = await Ext4Writer.open(image.source());
      image.write(writer, applyLayer(writer, layer), number);
      await image.assertClean(`after layer ${number}`);
    }
    if (!list) return writer;
    const expected = expectedListing(tree.list());
    assert.deepEqual(await readerListing(await image.openReader()), expected);
    assert.deepEqual(await image.kernelListing(), expected);
    return writer;
  } finally {
    image.close();
  }
}

test("a directory of 20,000 long names needs a second index level, and loses and gains names afterwards", async () => {
  const name = (index: number): string => `${"long-".repeat(30)}${index}`;
  const names = Array.from({ length: 20_000 }, (_, index) => name(index));
  const gone = names.filter((_, index) => index % 3 !== 0).map((gone) => layerEntry(`d/.wh.${gone}`));
  const added = Array.from({ length: 3000 }, (_, index) => layerEntry(`d/${name(index + 50_000)}`));
  await holds(GIB, [names.map((own) => layerEntry(`d/${own}`)), [...gone, ...added]]);
});

/** Ends of names that, behind 244 times "c", all have the legacy hash 0x2345678 shifted left by one. */
const COLLIDING = (
  "bRHl9U eCtQGU jjFa1d kj7bhD kN6UrT k5JGBw ryk1Jd szqsvJ tbkSEG u10LgK wtvZBC y0ohsG BUeVY2 Ce9x3n EIYAO2 " +
  "ENOhZF F0lZub G20Lzi JYe3dT J6sxU9 MSbuYR Nxvgv9 OJqDKE PAStQJ UQcA9I XvGp4n 30vHLj 4T0vEL 9AY16S"
)
  .split(" ")
  .map((end) => `d/${"c".repeat(244)}${end}`);

test("names of one hash go on in the next leaf, where the kernel and e2fsck find them", async () => {
  const path = temporary.join("collisions.img");
  Ext4Image.create(path, 64 * 2 ** 20).close();
  await run("mkfs.ext4", ["-q", "-F", "-b", "4096", path]);
  await run("tune2fs", ["-E", "hash_alg=legacy", path]);
  const image = Ext4Image.open(path);
  try {
    const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
    tree.apply(layerChanges(listedEntries(await image.kernelListing())));
    const others = Array.from({ length: 60 }, (_, index) => layerEntry(`d/${"other-".repeat(30)}${index}`));
    const layers = [
      [...others, ...COLLIDING.slice(0, 20).map((own) => layerEntry(own))],
      COLLIDING.slice(20).map((own) => layerEntry(own)),
    ];
    for (const [number, entries] of layers.entries()) {
      const writer = await Ext4Writer.open(image.source());
      tree.apply(layerChanges(entries));
      image.write(writer, applyLayer(writer, { entries, payloadBlocks: 0 }), number);
      await image.assertClean(`after layer ${number}`);
      // Its listing looks up every name through the index.
      assert.deepEqual(await image.kernelListing(), expectedListing(tree.list()));
    }
  } finally {
    image.close();
  }
});

test("a directory with more subdirectories than links can count, and with fewer again", async () => {
  const layer = Array.from({ length: 65_010 }, (_, index) => layerEntry(`d/${index}/`));
  await holds(2 * GIB, [layer, layer.slice(0, 60_000).map(({ path }) => layerEntry(path.replace("d/", "d/.wh.")))], { list: false });
});

test("a file in thousands of pieces: extent trees of one and of two levels", async () => {
  const runs = (count: number): LayerEntry["runs"] =>
    Array.from({ length: count }, (_, index) => ({ fileBlock: index * 2 + 1, blocks: 1 }));
  const files = [4, 5, 340, 341, 4 * 340, 4 * 340 + 1].map((count) => layerEntry(`f${count}`, { size: count * 8192, runs: runs(count) }));
  await holds(GIB / 4, [files, [layerEntry(".wh.f341"), layerEntry(".wh.f1361"), layerEntry("f5", { size: 10 })]]);
});

test("sparse files of up to 16 TB, with data at both ends", async () => {
  const MAX_BYTES = (2 ** 32 - 1) * 4096;
  const ends = (size: number): Partial<LayerEntry> => ({
    size,
    runs: [
      { fileBlock: 0, blocks: 1 },
      { fileBlock: Math.ceil(size / 4096) - 1, blocks: 1 },
    ],
  });
  const sizes = [2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 42, MAX_BYTES - 1, MAX_BYTES];
  await holds(GIB / 4, [sizes.map((size) => layerEntry(`f${size}`, ends(size)))]);
  const writer = Ext4Writer.format({ ...IDENTITY, bytes: GIB / 4 });
  writer.beginLayer(0);
  assert.throws(() => writer.apply({ kind: "put", entry: layerEntry("big", { size: MAX_BYTES + 1 }) }), {
    code: "UNSUPPORTED",
    message: /"big" has 17592186040321 bytes; ext4 holds at most 17592186040320/,
  });
});

test("a filesystem that fills up wraps around to what layers before have freed", async () => {
  const files = (count: number, prefix: string): LayerEntry[] =>
    Array.from({ length: count }, (_, index) => layerEntry(`${prefix}${index}`, { size: 409_600, runs: [{ fileBlock: 0, blocks: 100 }] }));
  const every = (count: number, prefix: string): LayerEntry[] =>
    Array.from({ length: count / 2 }, (_, index) => layerEntry(`.wh.${prefix}${index * 2}`));
  await holds(16 * 2 ** 20, [files(34, "a"), every(34, "a"), files(16, "b"), [...every(16, "b"), layerEntry("c")]]);
});

test("65,000 hard links are held, one more is refused", async () => {
  const links = Array.from({ length: 64_999 }, (_, index) => layerEntry(`l${index}`, { type: "hardlink", link: "f" }));
  const writer = await holds(GIB, [[layerEntry("f")], links], { list: false });
  writer.beginLayer(0);
  assert.throws(() => writer.apply({ kind: "put", entry: layerEntry("more", { type: "hardlink", link: "l7" }) }), {
    code: "UNSUPPORTED",
    message: /"l7" has 65000 hard links; ext4 holds at most 65000/,
  });
});

test("the largest device that overlaybd makes: 16383 GiB, with a file of 2.5 TB", async () => {
  const bytes = 16_383 * GIB;
  const image = Ext4Image.create(temporary.join("16383.img"), bytes);
  try {
    const writer = Ext4Writer.format({ ...IDENTITY, bytes });
    const blocks = (2.5 * 2 ** 40) / 4096;
    const placed = applyLayer(writer, {
      entries: [layerEntry("huge", { size: blocks * 4096, runs: [{ fileBlock: 0, blocks }] }), layerEntry("small")],
      payloadBlocks: blocks,
    });
    assert.deepEqual(
      placed.payload.map((place) => place.blocks),
      [blocks],
    );
    image.write(writer, { ...placed, payload: [] }, 0);
    const reader = await image.openReader();
    const huge = (await reader.list(2)).find((entry) => entry.name === "huge")!;
    const inode = await reader.inode(huge.inode);
    assert.ok(inode.sectors > 2 ** 32);
    assert.equal(
      (await reader.extents(huge.inode, inode)).reduce((sum, extent) => sum + extent.blocks, 0),
      blocks,
    );
    await image.assertClean();
  } finally {
    image.close();
  }
});
