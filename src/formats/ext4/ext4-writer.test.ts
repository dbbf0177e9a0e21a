import assert from "node:assert/strict";
import { test } from "node:test";
import { applyLayer, layerEntry, placePayload, type LayerEntry } from "../../../test/support/ext4-image.ts";
import { MemorySource } from "../../bytes/source.ts";
import { baseName } from "../../tree/path.ts";
import { Ext4Reader } from "./ext4-reader.ts";
import { Ext4Writer } from "./ext4-writer.ts";

const BYTES = 16 * 2 ** 20;
const IDENTITY = { uuid: Buffer.alloc(16, 1), hashSeed: Buffer.alloc(16, 2) };

function started(bytes = BYTES): Ext4Writer {
  const writer = Ext4Writer.format({ ...IDENTITY, bytes });
  writer.beginLayer(0);
  return writer;
}

function put(writer: Ext4Writer, path: string, fields: Partial<LayerEntry> = {}): void {
  writer.apply({ kind: "put", entry: layerEntry(path, fields) });
}

/** Inode numbers by path, after layers. */
async function numbers(...layers: (readonly LayerEntry[])[]): Promise<Record<string, number>> {
  const image = Buffer.alloc(BYTES);
  const writer = Ext4Writer.format({ ...IDENTITY, bytes: BYTES });
  for (const [number, entries] of layers.entries()) {
    for (const block of applyLayer(writer, placePayload(entries, number)).metadata) image.set(writer.metadataBlock(block), block * 4096);
  }
  const reader = await Ext4Reader.open(new MemorySource(image));
  return Object.fromEntries((await reader.list(2)).map((entry) => [entry.name, entry.inode]));
}

test("sizes that no filesystem can have are refused", () => {
  for (const bytes of [0, 2 ** 20, BYTES + 512, Number.NaN, 2 ** 46]) {
    assert.throws(() => Ext4Writer.format({ ...IDENTITY, bytes }), { code: "UNSUPPORTED", message: /a filesystem of/ }, String(bytes));
  }
});

test("a filesystem that has no blocks or no inodes left says so", () => {
  const blocks = [{ fileBlock: 0, blocks: 5000 }];
  assert.throws(() => put(started(), "f", { size: 5000 * 4096, runs: blocks }), {
    code: "UNSUPPORTED",
    message: /of 4096 blocks is full.*--vsize/,
  });
  const writer = started();
  const fill = (): void => {
    for (let index = 0; index < 9000; index++) put(writer, `f${index}`);
  };
  assert.throws(fill, { code: "UNSUPPORTED", message: /all 8192 inodes of the filesystem are in use.*--vsize/ });
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
  const xattrs = (value: Buffer, name = "user.a"): Partial<LayerEntry> => ({ xattrs: new Map([[name, value]]) });
  assert.throws(() => put(writer, "x", xattrs(Buffer.alloc(65537))), {
    code: "UNSUPPORTED",
    message: /user\.a has 65537 bytes, at most 65536/,
  });
  assert.throws(() => put(writer, "x", xattrs(Buffer.alloc(7), "system.posix_acl_access")), {
    code: "CORRUPT",
    message: /access control list/,
  });
});

test("inode numbers go up, and come from the lowest free one when they run out", async () => {
  const many = Array.from({ length: 8179 }, (_, index) => layerEntry(`f${index}`));
  const whiteouts = [layerEntry(".wh.f5"), layerEntry(".wh.f3")];
  const found = await numbers([layerEntry("first")], [layerEntry("second")], many, [...whiteouts, layerEntry("x"), layerEntry("y")]);
  assert.deepEqual([found["first"], found["second"], found["f0"], found["f8178"]], [11, 12, 13, 8191]);
  assert.deepEqual([found["x"], found["y"]], [8192, 13 + 3], "one after the last, then the lowest that is free");
});

test("the same layers give the same bytes, and an empty layer gives none", () => {
  const blocks = (): string[] => {
    const writer = Ext4Writer.format({ ...IDENTITY, bytes: BYTES });
    const { metadata } = applyLayer(writer, placePayload([layerEntry("a/b"), layerEntry("c/")], 0));
    const bytes = metadata.map((block) => `${block} ${Buffer.from(writer.metadataBlock(block)).toString("base64")}`);
    assert.deepEqual(applyLayer(writer, placePayload([], 1)), { payload: [], metadata: [] });
    return bytes;
  };
  assert.deepEqual(blocks(), blocks());
});

test("payload of files that the layer itself replaces is not referred to", () => {
  const runs = [{ fileBlock: 0, blocks: 3 }];
  const file = layerEntry("f", { size: 12288, runs });
  const writer = Ext4Writer.format({ ...IDENTITY, bytes: BYTES });
  const { payload } = applyLayer(writer, placePayload([file, layerEntry("g", { size: 12288, runs }), file], 0));
  assert.deepEqual(
    payload.map(({ payloadBlock, blocks }) => [payloadBlock, blocks]),
    [[3, 6]],
  );
});

test("a mount's first blocks come last", () => {
  const writer = Ext4Writer.format({ ...IDENTITY, bytes: BYTES });
  const { metadata } = applyLayer(
    writer,
    placePayload([layerEntry("d/"), layerEntry("f", { size: 1, runs: [{ fileBlock: 0, blocks: 1 }] })], 0),
  );
  assert.deepEqual(
    metadata
      .slice(-4)
      .toSorted((a, b) => a - b)
      .slice(0, 2),
    [0, 1],
    "superblock and descriptors",
  );
  assert.equal(new Set(metadata).size, metadata.length);
});

test("directories that do not fit memory are packed and unpacked, and give the same blocks", () => {
  const name = (index: number): string => `d${index % 17}/${"name-".repeat(10)}${index}`;
  const upper = [
    ...Array.from({ length: 300 }, (_, index) => layerEntry(`d${index % 17}/.wh.${baseName(name(index * 3))}`)),
    ...Array.from({ length: 1000 }, (_, index) => layerEntry(`${name(index + 5000)}${index % 5 === 0 ? "/" : ""}`)),
    layerEntry(name(7), { type: "symlink", link: "x" }),
  ];
  const layers = [Array.from({ length: 3000 }, (_, index) => layerEntry(name(index))), upper];
  const blocksOf = (maxNames: number): string[] => {
    const writer = Ext4Writer.format({ ...IDENTITY, bytes: 2 ** 26 }, { maxNames });
    return layers.flatMap((entries, number) =>
      applyLayer(writer, placePayload(entries, number)).metadata.map(
        (block) => `${block} ${Buffer.from(writer.metadataBlock(block)).toString("base64")}`,
      ),
    );
  };
  assert.deepEqual(blocksOf(100), blocksOf(300_000));
});
