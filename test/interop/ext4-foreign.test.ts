import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { link, mkdir, open, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { MemorySource } from "../../src/bytes/source.ts";
import { openOverlaybdLayer } from "../../src/device/layer.ts";
import { Ext4Writer } from "../../src/formats/ext4/ext4-writer.ts";
import { ZEROS } from "../../src/formats/lsmt/segment-table.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { TarReader } from "../../src/tar/tar-reader.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { run } from "../support/command.ts";
import {
  applyLayer,
  directoryListing,
  Ext4Image,
  expectedListing,
  layerEntry,
  listedEntries,
  payloadDigest,
  placePayload,
  readerListing,
  type LayerEntry,
  type Listing,
} from "../support/ext4-image.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

let temporary: TemporaryDirectory;
let population: string;

before(async () => {
  temporary = await TemporaryDirectory.create();
  population = temporary.join("population");
  await populate(population);
});
after(async () => await temporary[Symbol.asyncDispose]());

const MANY = Array.from({ length: 700 }, (_, index) => `many/file-with-a-rather-long-name-${index}`);

/** A tree in which every structure of the filesystem occurs. */
async function populate(directory: string): Promise<void> {
  await mkdir(`${directory}/many`, { recursive: true });
  await mkdir(`${directory}/plain`);
  await mkdir(`${directory}/deep/x/y/z`, { recursive: true });
  for (const name of MANY) await writeFile(`${directory}/${name}`, name.endsWith("7") ? name : "");
  await writeFile(`${directory}/plain/a`, "a".repeat(300_000));
  await writeFile(`${directory}/deep/x/y/z/file`, "deep");
  await link(`${directory}/plain/a`, `${directory}/plain/b`);
  await symlink("../deep/x", `${directory}/plain/short`);
  await symlink(`../${"long/".repeat(30)}`, `${directory}/plain/long`);
  await run("mkfifo", [`${directory}/plain/fifo`]);
  await run("mknod", [`${directory}/plain/null`, "c", "1", "3"]);
  await writeFile(`${directory}/sparse`, "head");
  const sparse = await open(`${directory}/sparse`, "r+");
  for (let at = 1; at < 40; at++) await sparse.write(`data ${at}`, at * 300_000);
  await sparse.close();
  await truncate(`${directory}/sparse`, 20_000_000);
  await run("setfattr", ["-n", "user.small", "-v", "value", `${directory}/plain/a`]);
  await run("setfattr", ["-n", "user.large", "-v", "v".repeat(900), `${directory}/plain`]);
  await utimes(`${directory}/plain`, 1_600_000_000, 1_600_000_000);
}

const ACROSS = Buffer.alloc(3000, "x");

/** What layers do to the population: everything that touches what is already there. */
const LAYERS: readonly (readonly LayerEntry[])[] = [
  [
    ...MANY.filter((_, index) => index % 2 === 0).map((name) => layerEntry(name.replace("many/", "many/.wh."))),
    ...Array.from({ length: 500 }, (_, index) => layerEntry(`many/${"another-long-name-".repeat(4)}${index}`)),
    layerEntry("plain/a", { size: 8000, runs: [{ fileBlock: 0, blocks: 2 }] }),
    layerEntry("deep/linked", { type: "hardlink", link: "plain/b" }),
    layerEntry("plain/", {
      mode: 0o700,
      uid: 70000,
      xattrs: new Map([
        ["user.across", ACROSS],
        ["user.tiny", Buffer.from("t")],
      ]),
    }),
    layerEntry("plain/short/through", { size: 1, runs: [{ fileBlock: 0, blocks: 1 }] }),
    layerEntry("plain/long/", {}),
    layerEntry("deep/x/.wh..wh..opq"),
    layerEntry("new", { size: 400_000, runs: [{ fileBlock: 0, blocks: 98 }] }),
  ],
  [
    layerEntry(".wh.many"),
    layerEntry("many", { type: "symlink", link: "plain" }),
    layerEntry(".wh.sparse"),
    layerEntry("plain/", {}),
    layerEntry("plain/a/", {}),
    layerEntry("lost+found/kept", { size: 4096, runs: [{ fileBlock: 0, blocks: 1 }] }),
  ],
];

/** Continues an image with layers, and compares with a tree in memory that starts as the image is. */
async function continueImage(
  image: Ext4Image,
  layers: readonly (readonly LayerEntry[])[],
  check: (when: string) => Promise<void>,
): Promise<void> {
  const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
  const start = await image.kernelListing();
  tree.apply(layerChanges(listedEntries(start)));
  assert.deepEqual(expectedListing(tree.list()), start);
  assert.deepEqual(await readerListing(await image.openReader()), start, "before the first layer");
  let writer = await Ext4Writer.open(image.source());
  for (const [number, entries] of layers.entries()) {
    const layer = placePayload(entries, number);
    tree.apply(layerChanges(layer.entries));
    const reopened = await Ext4Writer.open(image.source());
    const blocks = applyLayer(writer, layer);
    assert.deepEqual(applyLayer(reopened, layer), blocks);
    for (const block of blocks.metadata) assert.deepEqual(reopened.metadataBlock(block), writer.metadataBlock(block), `block ${block}`);
    image.write(writer, blocks, number);
    await check(`after layer ${number}`);
    const expected = expectedListing(tree.list());
    assert.deepEqual(await readerListing(await image.openReader()), expected, `reader after layer ${number}`);
    assert.deepEqual(await image.kernelListing(), expected, `kernel after layer ${number}`);
    writer = reopened;
  }
}

let images = 0;

async function makeImage(args: readonly string[], megabytes = 100): Promise<Ext4Image> {
  const path = temporary.join(`${images++}.img`);
  Ext4Image.create(path, megabytes * 2 ** 20).close();
  await run("mkfs.ext4", ["-q", "-F", "-d", population, "-U", "01234567-89ab-cdef-0123-456789abcdef", ...args, path]);
  return Ext4Image.open(path);
}

const CONTINUED: readonly (readonly [what: string, ...args: string[]])[] = [
  ["Debian's defaults: journal and metadata_csum"],
  ["uninit_bg", "-O", "^metadata_csum,uninit_bg"],
  ["no checksums", "-O", "^metadata_csum,^uninit_bg"],
  ["no flex_bg, small groups", "-O", "^flex_bg", "-g", "8192"],
  ["32-byte descriptors", "-O", "^64bit"],
  ["no journal, sparse_super2, a stored checksum seed", "-O", "^has_journal,sparse_super2,metadata_csum_seed"],
  ["no hashed directories", "-O", "^dir_index"],
  ["ea_inode and an orphan file", "-O", "ea_inode,orphan_file"],
];

for (const [what, ...args] of CONTINUED) {
  test(`a filesystem made by mkfs.ext4 is continued: ${what}`, async () => {
    const image = await makeImage(["-b", "4096", ...args]);
    try {
      await image.assertClean("before");
      await continueImage(image, LAYERS, async (when) => await image.assertClean(when));
    } finally {
      image.close();
    }
  });
}

test("filesystems whose directories hash names in other ways are continued", async () => {
  for (const algorithm of ["legacy", "tea"]) {
    const image = await makeImage(["-b", "4096", "-E", `hash_seed=00112233-4455-6677-8899-aabbccddeeff`]);
    try {
      await run("tune2fs", ["-E", `hash_alg=${algorithm}`, image.path]);
      const names = Array.from({ length: 200 }, (_, index) => layerEntry(`fresh/${"\xe4-name-".repeat(5)}${index}`));
      await continueImage(image, [names], async (when) => await image.assertClean(`${algorithm} ${when}`));
    } finally {
      image.close();
    }
  }
});

const READ: readonly (readonly [what: string, ...args: string[]])[] = [
  ["blocks of 1 KiB", "-b", "1024"],
  ["blocks of 2 KiB", "-b", "2048"],
  ["inodes of 128 bytes", "-I", "128", "-O", "^metadata_csum"],
  ["inodes of 512 bytes", "-I", "512"],
  ["ext3: block maps, no extents", "-t", "ext3"],
  ["ext2 with blocks of 1 KiB: block maps of three levels", "-t", "ext2", "-b", "1024"],
];

for (const [what, ...args] of READ) {
  test(`a filesystem made by mkfs.ext4 is read, but not continued: ${what}`, async () => {
    const image = await makeImage(args);
    try {
      assert.deepEqual(await readerListing(await image.openReader()), await image.kernelListing());
      await assert.rejects(Ext4Writer.open(image.source()), { code: "UNSUPPORTED", message: /cannot add a layer/ });
    } finally {
      image.close();
    }
  });
}

/** Without what mkfs does not take over: times, and the directory that it adds. */
function timeless(listing: Listing): object {
  return [...listing].filter(([path]) => path !== "lost+found").map(([path, { times: _times, ...rest }]) => [path, rest]);
}

test("blocks larger than a page are read", async () => {
  for (const blockBytes of [8192, 65536]) {
    const image = await makeImage(["-b", String(blockBytes)], 300);
    try {
      const listing = await readerListing(await image.openReader());
      assert.deepEqual(timeless(listing), timeless(await directoryListing(population)), `blocks of ${blockBytes}`);
    } finally {
      image.close();
    }
  }
});

test("inline data is refused by name", async () => {
  const image = await makeImage(["-O", "inline_data"]);
  try {
    await assert.rejects(image.openReader(), { code: "UNSUPPORTED", message: /inline_data/ });
  } finally {
    image.close();
  }
});

test("a journal that was not replayed is refused with what to do", async () => {
  const image = await makeImage([]);
  try {
    await run("debugfs", ["-w", "-R", "feature needs_recovery", image.path]);
    await assert.rejects(image.openReader(), { code: "UNSUPPORTED", message: /journal has to be replayed/ });
  } finally {
    image.close();
  }
});

const TESTDATA = new URL("../../testdata/", import.meta.url);

/** Writes the device that layer blobs stand for into an image file. */
async function stackImage(blobs: readonly Uint8Array[]): Promise<Ext4Image> {
  const layers = blobs.map(async (blob, index) => {
    const { lsmt } = await openOverlaybdLayer(new MemorySource(blob, `layer ${index}`), { declared: true, keepPinned: true });
    return lsmt;
  });
  const device = stackLayers(await Promise.all(layers));
  const path = temporary.join(`${images++}.img`);
  Ext4Image.create(path, device.size).close();
  const file = await open(path, "r+");
  const segments: [number, number][] = [];
  device.segments.forRange(0, device.size / 512, (firstSector, sectors, mappedSector) => {
    if (mappedSector !== ZEROS) segments.push([firstSector * 512, sectors * 512]);
  });
  for (const [offset, bytes] of segments) {
    const content = await device.read(offset, bytes);
    if (content.some((byte) => byte !== 0)) await file.write(content, 0, bytes, offset);
  }
  await file.close();
  return Ext4Image.open(path);
}

const UPPER: readonly (readonly LayerEntry[])[] = [
  [
    ...Array.from({ length: 300 }, (_, index) => layerEntry(`added/${"long-".repeat(20)}${index}`)),
    layerEntry("data", { size: 100_000, runs: [{ fileBlock: 0, blocks: 25 }] }),
    layerEntry("lost+found/here", { size: 4096, runs: [{ fileBlock: 0, blocks: 1 }] }),
  ],
  [layerEntry(".wh..wh..opq"), layerEntry("alone", { xattrs: new Map([["user.a", Buffer.alloc(200, "a")]]) })],
];

test("the stack that overlaybd made on its own filesystem is continued, its odd lost+found included", async () => {
  const blobs = [0, 1, 2].map((layer) => zstdDecompressSync(readFileSync(new URL(`overlaybd/stack-layer${layer}.commit.zst`, TESTDATA))));
  const image = await stackImage(blobs);
  try {
    const before = await image.check();
    assert.ok(
      before.complaints.some((line) => /inode 11/.test(line)),
      "the lost+found that overlaybd makes is broken",
    );
    await continueImage(image, UPPER, async (when) => {
      const { status, complaints } = await image.check();
      assert.deepEqual([status, complaints], [0, []], `the first change mends what was odd, ${when}`);
    });
  } finally {
    image.close();
  }
});

test("overlaybd's base layer with its journal, its checksums and its reserved descriptors is continued", async () => {
  const chunks: Uint8Array[] = [];
  const reader = new TarReader({ entry: () => {}, data: (bytes) => chunks.push(Uint8Array.from(bytes)), entryEnd: () => {} }, "ext4_64");
  reader.write(gunzipSync(readFileSync(new URL("lsmt/ext4_64.tar.gz", TESTDATA))));
  reader.close();
  const image = await stackImage([Buffer.concat(chunks)]);
  try {
    await image.assertClean("before");
    await continueImage(image, UPPER, async (when) => await image.assertClean(when));
  } finally {
    image.close();
  }
});
