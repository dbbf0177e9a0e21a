import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ErofsWriter } from "../../src/formats/erofs/erofs-writer.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { applyErofsLayer, ErofsImage, expectedErofsListing } from "../support/erofs-image.ts";
import { layerEntry, payloadDigest, placePayload, type LayerEntry } from "../support/ext4-image.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const FORMAT = { bytes: 2 ** 30, uuid: Buffer.from("0123456789abcdef") };

let temporary: TemporaryDirectory;
let images = 0;
before(async () => void (temporary = await TemporaryDirectory.create()));
after(async () => await temporary[Symbol.asyncDispose]());

/** Applies layers one after the other; fsck.erofs is content after each, our reader and the kernel show the tree in memory in the end. */
async function holds(...layers: readonly (readonly LayerEntry[])[]): Promise<void> {
  const image = ErofsImage.create(temporary.join(`${images++}.img`), FORMAT.bytes);
  try {
    const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
    let writer = ErofsWriter.format(FORMAT);
    for (const [number, entries] of layers.entries()) {
      const layer = placePayload(entries, number);
      tree.apply(layerChanges(layer.entries));
      if (number > 0) writer = await ErofsWriter.open(image.source());
      image.write(writer, applyErofsLayer(writer, layer), number);
      await image.assertClean(`after layer ${number}`);
    }
    const expected = expectedErofsListing(tree.list());
    assert.deepEqual(await image.listing(), expected);
    assert.deepEqual(await image.kernelListing(), expected);
  } finally {
    image.close();
  }
}

test("directories of any number of names, before and behind . and .., lose and gain names", async () => {
  const names = (directory: string, count: number, length: number): LayerEntry[] =>
    Array.from({ length: count }, (_, index) =>
      layerEntry(`${directory}/${"!-0aZ~\xff"[index % 7]}${String(index).padStart(length - 1, "x")}`),
    );
  const lower = [
    ...[1, 2, 100, 150, 200, 250, 300, 5000].flatMap((count) => names(`short${count}`, count, 8)),
    ...[14, 15, 16, 30, 31, 32, 1000].flatMap((count) => names(`long${count}`, count, 255)),
  ];
  const upper = [
    ...names("short5000", 5000, 8)
      .filter((_, index) => index % 3 !== 0)
      .map(({ path }) => layerEntry(path.replace("/", "/.wh."))),
    ...names("short1", 400, 9),
    ...names("empty/\x01", 1, 2),
  ];
  await holds(lower, upper);
});

test("more links than 16 bits can count, of files and of directories", async () => {
  const count = 65_540;
  const file = layerEntry("file", { size: 1, runs: [{ fileBlock: 0, blocks: 1 }] });
  const links = Array.from({ length: count }, (_, index) => layerEntry(`links/${index}`, { type: "hardlink", link: "file" }));
  const directories = Array.from({ length: count }, (_, index) => layerEntry(`directories/${index}/`));
  const image = ErofsImage.create(temporary.join(`${images++}.img`), FORMAT.bytes);
  try {
    const writer = ErofsWriter.format(FORMAT);
    image.write(writer, applyErofsLayer(writer, placePayload([file, ...links, ...directories], 0)), 0);
    await image.assertClean();
    const { root, ...counted } = await image.kernelLinks(["file", "links", "directories"]);
    assert.deepEqual([root, counted], [4, { file: count + 1, links: 2, directories: count + 2 }]);
  } finally {
    image.close();
  }
});

test("symlinks and attributes of every size around a block", async () => {
  const entries: LayerEntry[] = [];
  for (let bytes = 3900; bytes < 4096; bytes += 7) {
    entries.push(layerEntry(`link${bytes}`, { type: "symlink", link: "t".repeat(bytes), uid: bytes % 2 ? 70_000 : 0 }));
    const xattrs = new Map([["trusted.a", Buffer.alloc(bytes, `${bytes}`)]]);
    entries.push(layerEntry(`both${bytes}`, { type: "symlink", link: "t".repeat(bytes), xattrs }));
    entries.push(layerEntry(`directory${bytes}/`, { xattrs }), layerEntry(`directory${bytes}/${"n".repeat(200)}`));
  }
  const shared = new Map(Array.from({ length: 300 }, (_, index): [string, Uint8Array] => [`user.${index}`, Buffer.alloc(40, `${index}`)]));
  entries.push(layerEntry("shared1", { xattrs: shared }), layerEntry("shared2", { xattrs: shared }));
  await holds(entries);
});

test("sparse files: data at both ends, in the middle, in thousands of pieces, and none", async () => {
  const both = (size: number, unit: number): Partial<LayerEntry> => ({
    size,
    runs: [
      { fileBlock: 0, blocks: unit },
      {
        fileBlock: Math.floor((size - 1) / 4096 / unit) * unit,
        blocks: Math.ceil(size / 4096) - Math.floor((size - 1) / 4096 / unit) * unit,
      },
    ],
  });
  const pieces = Array.from({ length: 3000 }, (_, index) => ({ fileBlock: index * 2 + 1, blocks: 1 }));
  await holds(
    [
      layerEntry("small", both(4096 * 3 + 1, 1)),
      layerEntry("4 GiB", both(2 ** 32, 1024)),
      layerEntry("above 4 GiB", both(2 ** 32 + 1, 1024)),
      layerEntry("16 TiB", both(2 ** 44, 2048)),
      layerEntry("hole", { size: 2 ** 50 }),
      layerEntry("one byte", { size: 1 }),
      layerEntry("pieces", { size: 3000 * 8192, runs: pieces, xattrs: new Map([["user.a", Buffer.from("a")]]) }),
    ],
    [layerEntry(".wh.small"), layerEntry("linked", { type: "hardlink", link: "pieces" }), layerEntry("hole", both(8192 * 5, 2))],
  );
});

test("fsck.erofs does complain: about a superblock that was changed", async () => {
  const image = ErofsImage.create(temporary.join(`${images++}.img`), FORMAT.bytes);
  try {
    const writer = ErofsWriter.format(FORMAT);
    image.write(writer, applyErofsLayer(writer, placePayload([layerEntry("a/b")], 0)), 0);
    await image.assertClean();
    image.patch(2000, Buffer.from([1]));
    await assert.rejects(image.assertClean(), /fsck.erofs/);
    image.patch(2000, Buffer.from([0]));
    await image.assertClean();
  } finally {
    image.close();
  }
});
