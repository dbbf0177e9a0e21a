import assert from "node:assert/strict";
import { test } from "node:test";
import { applyErofsLayer, erofsListing } from "../../../test/support/erofs-image.ts";
import { layerEntry, placePayload, type LayerEntry } from "../../../test/support/ext4-image.ts";
import { MemorySource } from "../../bytes/source.ts";
import { LazyError } from "../../errors.ts";
import { lookupPath } from "../../tree/filesystem-reader.ts";
import { ErofsReader } from "./erofs-reader.ts";
import { ErofsWriter } from "./erofs-writer.ts";
import { SUPERBLOCK_OFFSET, superblockStruct } from "./layout.ts";

const BYTES = 16 * 2 ** 20;
const SEED = 0x1ee7;
const SHARED = new Map([["user.shared", Buffer.alloc(40, "s")]]);
const ENTRIES: readonly LayerEntry[] = [
  ...Array.from({ length: 150 }, (_, index) => layerEntry(`many/${"name-".repeat(10)}${index}`)),
  layerEntry("a/b/c/", { xattrs: new Map([["user.large", Buffer.alloc(1500, "b")]]) }),
  layerEntry("pieces", { size: 2 ** 24, runs: Array.from({ length: 400 }, (_, index) => ({ fileBlock: index * 3, blocks: 1 })) }),
  layerEntry("a/short", { type: "symlink", link: "b/c", mtime: { seconds: 5, nanoseconds: 7 } }),
  layerEntry("a/long", { type: "symlink", link: "/a/".padEnd(4095, "./") }),
  layerEntry("file", { size: 5, runs: [{ fileBlock: 0, blocks: 1 }], xattrs: SHARED, uid: 70_000 }),
  layerEntry("other", { size: 5, runs: [{ fileBlock: 0, blocks: 1 }], xattrs: SHARED }),
  layerEntry("null", { type: "character", major: 1, minor: 3 }),
];

/** An image in memory and the numbers of its metadata blocks. */
function makeImage(): { image: Buffer; metadata: readonly number[] } {
  const writer = ErofsWriter.format({ bytes: BYTES, uuid: Buffer.alloc(16, 1) });
  const { metadata } = applyErofsLayer(writer, placePayload(ENTRIES, 0));
  const image = Buffer.alloc(BYTES);
  for (const block of metadata) image.set(writer.metadataBlock(block), block * 4096);
  return { image, metadata };
}

async function readAll(image: Buffer): Promise<number> {
  const reader = await ErofsReader.open(new MemorySource(image, "image"));
  const seen = new Set<number>();
  const pending = [reader.root];
  for (let number = pending.pop(); number !== undefined; number = pending.pop()) {
    if (seen.has(number)) continue; // damaged directories can contain themselves
    seen.add(number);
    const { type } = await reader.inode(number);
    await reader.xattrs(number);
    if (type === "directory") for (const { inode } of await reader.list(number)) pending.push(inode);
    if (type === "symlink") await reader.linkTarget(number);
    if (type === "file") {
      const file = await reader.file(number);
      await file.read(0, Math.min(file.size, 65536));
    }
  }
  return seen.size;
}

/** A small generator of its own (xorshift), so that a seed says everything. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

test("damage ends in an error or a result, never in a hang or another error", async () => {
  const { image, metadata } = makeImage();
  assert.equal(await readAll(image), ENTRIES.length + 4, "and the root, many, a, a/b");
  const next = random(SEED);
  let refused = 0;
  const rounds = 200;
  for (let round = 0; round < rounds; round++) {
    const undo: [number, number][] = [];
    for (let flip = 1 + next(4); flip > 0; flip--) {
      const block = metadata[next(metadata.length)];
      const at = block * 4096 + (block === 0 ? SUPERBLOCK_OFFSET + next(128) : next(next(2) ? 4096 : 256));
      undo.push([at, image[at]]);
      image[at] = next(3) ? image[at] ^ (1 << next(8)) : 0xff;
    }
    image.writeUInt32LE(0, SUPERBLOCK_OFFSET + superblockStruct.fields.compat[0]); // no checksum
    for (const read of [readAll, async () => void (await ErofsWriter.open(new MemorySource(image)))]) {
      try {
        await read(image);
      } catch (error) {
        if (!(error instanceof LazyError)) throw error;
        refused++;
      }
    }
    for (const [at, byte] of undo.toReversed()) image[at] = byte;
  }
  assert.ok(refused > rounds / 4, `${refused} of ${rounds * 2} refused, seed ${SEED}`);
});

test("every flipped bit of the superblock's block is found by its checksum, or does not matter", async () => {
  const { image } = makeImage();
  const whole = await erofsListing(await ErofsReader.open(new MemorySource(image)));
  const next = random(SEED);
  let refused = 0;
  for (let round = 0; round < 60; round++) {
    const at = next(round % 2 ? 4096 : SUPERBLOCK_OFFSET + 128);
    const byte = image[at];
    image[at] ^= 1 << next(8);
    try {
      assert.deepEqual(await erofsListing(await ErofsReader.open(new MemorySource(image))), whole, `byte ${at}, seed ${SEED}`);
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      refused++;
    }
    image[at] = byte;
  }
  assert.ok(refused > 10, `${refused} of 60 refused`);
});

test("paths are found through symlinks, and stay inside of the filesystem", async () => {
  const reader = await ErofsReader.open(new MemorySource(makeImage().image, "image"));
  const directory = await lookupPath(reader, "/a/b/c");
  for (const path of ["a/short", "a/short/../c/.", "/../a/b/c/../../short/"]) assert.equal(await lookupPath(reader, path), directory, path);
  await assert.rejects(lookupPath(reader, "a/none/x"), { code: "NOT_FOUND", message: /"a\/none\/x": there is no "none"/ });
});

test("what is too short, something else or beyond what is implemented is refused", async () => {
  const open = async (change: (image: Buffer) => Buffer | void): Promise<unknown> => {
    const { image } = makeImage();
    return await ErofsReader.open(new MemorySource(change(image) ?? image));
  };
  const unchecked = (image: Buffer): void => void image.writeUInt32LE(0, SUPERBLOCK_OFFSET + superblockStruct.fields.compat[0]);
  await assert.rejects(
    open((image) => image.subarray(0, 100)),
    { code: "CORRUPT", message: /100 bytes are too few/ },
  );
  await assert.rejects(
    open((image) => void image.fill(0, 1024, 1028)),
    { code: "CORRUPT", message: /magic 0x0, expected 0xe0f5e1e2/ },
  );
  await assert.rejects(
    open((image) => image.subarray(0, 8192)),
    { code: "CORRUPT", message: /counts \d+ blocks/ },
  );
  await assert.rejects(
    open((image) => void image.writeUInt8(1, 2000)),
    { code: "CORRUPT", message: /has checksum 0x/ },
  );
  await assert.rejects(
    open((image) => {
      unchecked(image);
      image.writeUInt8(0x80, 1024 + superblockStruct.fields.incompat[0]);
    }),
    { code: "UNSUPPORTED", message: /features 0x80/ },
  );
});

test("reading goes through the metadata in few reads", async () => {
  const { image, metadata } = makeImage();
  let reads = 0;
  const source = new MemorySource(image);
  const counting = {
    name: "image",
    size: source.size,
    read: async (offset: number, length: number) => {
      reads++;
      return await source.read(offset, length);
    },
    close: async () => {},
  };
  await ErofsWriter.open(counting);
  assert.ok(reads <= 3 + Math.ceil((metadata.length * 4096) / 65536), `${reads} reads`);
});
