import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { link, mkdir, open, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { z } from "zod";
import { MemorySource } from "../../src/bytes/source.ts";
import { ErofsReader } from "../../src/formats/erofs/erofs-reader.ts";
import { ErofsWriter } from "../../src/formats/erofs/erofs-writer.ts";
import { decodeRecord, LSMT_RECORD_BYTES, MAPPING_BYTES } from "../../src/formats/lsmt/layout.ts";
import { parseMappings } from "../../src/formats/lsmt/lsmt-reader.ts";
import { openZFile } from "../../src/formats/zfile/zfile-reader.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import { lookupPath, type FilesystemReader } from "../../src/tree/filesystem-reader.ts";
import { MemoryTree } from "../../src/tree/memory-tree.ts";
import { run } from "../support/command.ts";
import { applyErofsLayer, ErofsImage, expectedErofsListing } from "../support/erofs-image.ts";
import { directoryListing, layerEntry, listedEntries, payloadDigest, placePayload, type LayerEntry } from "../support/ext4-image.ts";
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
  for (const name of MANY) await writeFile(`${directory}/${name}`, name.endsWith("7") ? name : "");
  for (const bytes of [1, 4000, 4095, 4096, 4097, 8191, 300_000]) await writeFile(`${directory}/plain/${bytes}`, "x".repeat(bytes));
  await link(`${directory}/plain/300000`, `${directory}/plain/linked`);
  await symlink("../many", `${directory}/plain/short`);
  await symlink(`../${"long/".repeat(700)}`, `${directory}/plain/long`);
  await run("mkfifo", [`${directory}/plain/fifo`]);
  await run("mknod", [`${directory}/plain/null`, "c", "1", "3"]);
  await run("mknod", [`${directory}/plain/large`, "b", "300", "70000"]);
  await writeFile(`${directory}/sparse`, "head");
  const sparse = await open(`${directory}/sparse`, "r+");
  for (let at = 1; at < 20; at++) await sparse.write(`data ${at}`, at * 300_000);
  await sparse.close();
  await truncate(`${directory}/sparse`, 9_000_000);
  for (const name of [...MANY.slice(0, 5), "plain/4095"]) await run("setfattr", ["-n", "user.same", "-v", "value", `${directory}/${name}`]);
  await run("setfattr", ["-n", "user.large", "-v", "v".repeat(3000), `${directory}/plain`]);
  await utimes(`${directory}/plain`, 1_600_000_000, 1_600_000_000);
}

let images = 0;

async function makeImage(...args: readonly string[]): Promise<string> {
  const path = temporary.join(`${images++}.img`);
  await run("mkfs.erofs", ["--quiet", "-U", "01234567-89ab-cdef-0123-456789abcdef", ...args, path, population]);
  return path;
}

const READ: readonly (readonly [what: string, ...args: string[]])[] = [
  ["as it comes: small files and tails behind their inodes"],
  ["all inodes extended", "-Eforce-inode-extended"],
  ["all inodes compact, all of one time", "-Eforce-inode-compact", "-T1000000000"],
  ["chunks of 4 KiB", "--chunksize=4096"],
  ["chunks of 64 KiB", "--chunksize=65536"],
  ["chunks of 64 KiB with large indexes", "--chunksize=65536", "-Eforce-chunk-indexes"],
  ["all attributes inline", "-x100"],
  ["no checksum", "-Enosbcrc"],
];

for (const [what, ...args] of READ) {
  test(`a filesystem made by mkfs.erofs is read as the kernel reads it: ${what}`, async () => {
    const image = ErofsImage.open(await makeImage(...args), 2 ** 27);
    try {
      const listing = await image.listing();
      assert.deepEqual(listing, await image.kernelListing());
      const populated = await directoryListing(population);
      assert.deepEqual([...listing.keys()], [...populated.keys()].toSorted());
    } finally {
      image.close();
    }
  });
}

test("a filesystem with files that have data behind their inodes is not continued", async () => {
  const image = ErofsImage.open(await makeImage(), 2 ** 27);
  try {
    await assert.rejects(ErofsWriter.open(image.source()), { code: "UNSUPPORTED", message: /has data behind its inode/ });
  } finally {
    image.close();
  }
});

test("a compressed filesystem is listed; its compressed files are refused by name", async () => {
  const image = ErofsImage.open(await makeImage("-zlz4"), 2 ** 27);
  try {
    const reader = await ErofsReader.open(image.source());
    const names = await reader.list(await lookupPath(reader, "plain"));
    assert.ok(names.some(({ name }) => name === "300000"));
    const number = await lookupPath(reader, "plain/300000");
    await assert.rejects(reader.file(number), { code: "UNSUPPORTED", message: /is a compressed file/ });
    await assert.rejects(ErofsWriter.open(image.source()), { code: "UNSUPPORTED", message: /compress/ });
  } finally {
    image.close();
  }
});

/** What layers do to the population: everything that touches what is already there. */
const LAYERS: readonly (readonly LayerEntry[])[] = [
  [
    ...MANY.filter((_, index) => index % 2 === 0).map((name) => layerEntry(name.replace("many/", "many/.wh."))),
    ...Array.from({ length: 500 }, (_, index) => layerEntry(`many/${"another-long-name-".repeat(4)}${index}`)),
    layerEntry("plain/4095", { size: 8000, runs: [{ fileBlock: 0, blocks: 2 }] }),
    layerEntry("linked", { type: "hardlink", link: "plain/linked" }),
    layerEntry("plain/", { mode: 0o700, uid: 70000, xattrs: new Map([["user.tiny", Buffer.from("t")]]) }),
    layerEntry("plain/short/through", { size: 1, runs: [{ fileBlock: 0, blocks: 1 }] }),
    layerEntry("new", { size: 400_000, runs: [{ fileBlock: 0, blocks: 98 }] }),
  ],
  [
    layerEntry(".wh.many"),
    layerEntry("many", { type: "symlink", link: "plain" }),
    layerEntry(".wh.sparse"),
    layerEntry("plain/4096/", {}),
    layerEntry("plain/null/", {}),
  ],
];

/** Continues an image with layers, and compares with a tree in memory that starts as the image is. */
async function continueImage(image: ErofsImage, start: readonly LayerEntry[], layers: readonly (readonly LayerEntry[])[]): Promise<void> {
  const tree = new MemoryTree<LayerEntry, string>(payloadDigest);
  tree.apply(layerChanges(start));
  let writer = await ErofsWriter.open(image.source());
  for (const [number, entries] of layers.entries()) {
    const layer = placePayload(entries, number);
    tree.apply(layerChanges(layer.entries));
    const reopened = await ErofsWriter.open(image.source());
    const blocks = applyErofsLayer(writer, layer);
    assert.deepEqual(applyErofsLayer(reopened, layer), blocks);
    for (const block of blocks.metadata) assert.deepEqual(reopened.metadataBlock(block), writer.metadataBlock(block), `block ${block}`);
    image.write(writer, blocks, number);
    await image.assertClean(`after layer ${number}`);
    const expected = expectedErofsListing(tree.list());
    assert.deepEqual(await image.listing(), expected, `reader after layer ${number}`);
    assert.deepEqual(await image.kernelListing(), expected, `kernel after layer ${number}`);
    writer = reopened;
  }
}

/** The kernel's listing of an image as a layer's entries. */
async function entriesOf(image: ErofsImage): Promise<LayerEntry[]> {
  return listedEntries(await image.mounted(directoryListing));
}

for (const [what, ...args] of [
  ["files in one piece", "-Enoinline_data"],
  ["chunks of 4 KiB", "--chunksize=4096", "-Enoinline_data"],
] as const) {
  test(`a filesystem made by mkfs.erofs is continued: ${what}`, async () => {
    const image = ErofsImage.open(await makeImage(...args), 2 ** 27);
    try {
      await continueImage(image, await entriesOf(image), LAYERS);
    } finally {
      image.close();
    }
  });
}

const TESTDATA = new URL("../../testdata/erofs/", import.meta.url);

/** Writes what turboOCI layers hold themselves into an image, and says where they refer to their tars. */
async function turboImage(layers: number): Promise<{ image: ErofsImage; remote: [start: number, end: number][] }> {
  const image = ErofsImage.create(temporary.join(`${images++}.img`), 2 ** 36);
  const file = await open(image.path, "r+");
  let remote: [start: number, end: number][] = [];
  for (let layer = 0; layer < layers; layer++) {
    const blob = readFileSync(new URL(`turbo-layer${layer}.erofs.fs.meta`, TESTDATA));
    const zfile = await openZFile(new MemorySource(blob, `layer ${layer}`));
    const bytes = await zfile.read(0, zfile.size);
    const { indexOffset, indexEntries } = decodeRecord(bytes.subarray(-LSMT_RECORD_BYTES), "trailer");
    const mappings = parseMappings(bytes.subarray(indexOffset, indexOffset + indexEntries * MAPPING_BYTES));
    for (let at = 0; at < mappings.count; at++) {
      const [start, end] = [mappings.firstSector[at] * 512, (mappings.firstSector[at] + mappings.sectors[at]) * 512];
      const mapped = mappings.mappedSector[at] * 512;
      if (mappings.tag[at] === 0 && mappings.zeroed[at] === 0) {
        await file.write(bytes, mapped, end - start, start);
        remote = remote.filter(([from, to]) => to <= start || from >= end);
      } else if (mappings.tag[at] === 1) {
        remote.push([start, end]);
      }
    }
  }
  await file.close();
  return { image, remote };
}

const recordedLine = z.object({
  path: z.string(),
  ino: z.number(),
  nlink: z.number(),
  type: z.enum(["dir", "reg", "symlink", "chr", "blk", "fifo"]),
  mode: z.string(),
  uid: z.number(),
  gid: z.number(),
  mtime: z.string(),
  size: z.number().nullable(),
  target: z.string().optional(),
  rdev: z.string().optional(),
  xattrs_b64: z.record(z.string(), z.string()).optional(),
});
type Recorded = z.infer<typeof recordedLine>;

const RECORDED_TYPES = {
  directory: "dir",
  file: "reg",
  symlink: "symlink",
  character: "chr",
  block: "blk",
  fifo: "fifo",
  socket: "dir",
  unknown: "dir",
} as const;

async function recordedForm(reader: FilesystemReader): Promise<Recorded[]> {
  const found: Recorded[] = [];
  const visit = async (number: number, path: string): Promise<void> => {
    const { type, mode, uid, gid, mtime, size, links, major, minor } = await reader.inode(number);
    const xattrs = [...(await reader.xattrs(number))].map(([name, value]) => [name, Buffer.from(value).toString("base64")] as const);
    found.push({
      path: Buffer.from(path, "latin1").toString(),
      ino: number,
      nlink: links,
      type: RECORDED_TYPES[type],
      mode: mode.toString(8).padStart(4, "0"),
      uid,
      gid,
      mtime: `${mtime.seconds}.${String(mtime.nanoseconds).padStart(9, "0")}`,
      size: type === "directory" ? null : size,
      ...(type === "symlink" && { target: Buffer.from(await reader.linkTarget(number), "latin1").toString() }),
      ...((type === "character" || type === "block") && { rdev: `${major}:${minor}` }),
      ...(xattrs.length > 0 && { xattrs_b64: Object.fromEntries(xattrs) }),
    });
    if (type !== "directory") return;
    for (const { name, inode } of await reader.list(number)) await visit(inode, path === "." ? name : `${path}/${name}`);
  };
  await visit(reader.root, ".");
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

test("what overlaybd made of each layer is read, and nothing of the files' data with it", async () => {
  for (const layers of [1, 2, 3]) {
    const { image, remote } = await turboImage(layers);
    try {
      assert.ok(remote.length > 0);
      const recorded = zstdDecompressSync(readFileSync(new URL(`turbo-tree${layers - 1}.jsonl.zst`, TESTDATA))).toString();
      const expected = recorded
        .trimEnd()
        .split("\n")
        .map((line) => recordedLine.parse(JSON.parse(line)));
      const source = image.source((offset, length) => {
        const touched = remote.find(([start, end]) => start < offset + length && end > offset);
        assert.equal(touched, undefined, `read of [${offset}, ${offset + length})`);
      });
      assert.deepEqual(
        await recordedForm(await ErofsReader.open(source)),
        expected.toSorted((a, b) => (a.path < b.path ? -1 : 1)),
      );
      await ErofsWriter.open(source);
    } finally {
      image.close();
    }
  }
});

test("what overlaybd made is continued", async () => {
  const { image } = await turboImage(3);
  try {
    const upper: readonly (readonly LayerEntry[])[] = [
      [
        ...Array.from({ length: 300 }, (_, index) => layerEntry(`added/${"long-".repeat(20)}${index}`)),
        layerEntry("data", { size: 100_000, runs: [{ fileBlock: 0, blocks: 25 }] }),
        layerEntry("etc/hl", { type: "hardlink", link: "bin/ping" }),
        layerEntry(".wh.dev"),
      ],
      [layerEntry(".wh..wh..opq"), layerEntry("alone", { xattrs: new Map([["user.a", Buffer.alloc(200, "a")]]) })],
    ];
    await continueImage(image, await entriesOf(image), upper);
  } finally {
    image.close();
  }
});
