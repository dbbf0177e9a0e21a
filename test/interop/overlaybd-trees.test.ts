import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { z } from "zod";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { openOverlaybdLayer } from "../../src/device/layer.ts";
import { Ext4Reader } from "../../src/formats/ext4/ext4-reader.ts";
import { decodeDevice } from "../../src/formats/ext4/inode.ts";
import { FILE_KIND, ROOT_INODE } from "../../src/formats/ext4/layout.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { TarReader } from "../../src/tar/tar-reader.ts";

const TESTDATA = new URL("../../testdata/", import.meta.url);

/** As in testdata/overlaybd/*.jsonl.zst: what the kernel showed of a path. */
const listedLine = z.object({
  path: z.string(),
  type: z.enum(["dir", "reg", "symlink", "chr", "blk", "fifo"]),
  mode: z.string(),
  uid: z.number(),
  gid: z.number(),
  mtime: z.string(),
  ino: z.number(),
  nlink: z.number(),
  size: z.number().nullable(),
  target: z.string().optional(),
  rdev: z.string().optional(),
  sha256: z.string().optional(),
  xattrs_b64: z.record(z.string(), z.string()).optional(),
});
type Listed = z.infer<typeof listedLine>;

const TYPES: ReadonlyMap<number, Listed["type"]> = new Map([
  [FILE_KIND.directory, "dir"],
  [FILE_KIND.file, "reg"],
  [FILE_KIND.symlink, "symlink"],
  [FILE_KIND.character, "chr"],
  [FILE_KIND.block, "blk"],
  [FILE_KIND.fifo, "fifo"],
]);

function load(name: string): Buffer {
  const bytes = readFileSync(new URL(name, TESTDATA));
  return name.endsWith(".zst") ? zstdDecompressSync(bytes) : bytes;
}

function listing(name: string): Listed[] {
  const lines = load(`overlaybd/${name}.jsonl.zst`).toString().trimEnd().split("\n");
  return lines.map((line) => listedLine.parse(JSON.parse(line))).filter(({ path }) => path !== "lost+found");
}

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

/** Lists a device's filesystem through our own readers, in the form of the recorded trees. */
async function listTree(device: ByteSource): Promise<Listed[]> {
  const reader = await Ext4Reader.open(device);
  const found: Listed[] = [];
  const visit = async (number: number, path: string): Promise<void> => {
    found.push(await describe(reader, number, path));
    if (found.at(-1)!.type !== "dir") return;
    for (const { name, inode } of await reader.list(number)) {
      if (path !== "." || name !== "lost+found") await visit(inode, path === "." ? name : `${path}/${name}`);
    }
  };
  await visit(ROOT_INODE, ".");
  return found;
}

async function describe(reader: Ext4Reader, ino: number, path: string): Promise<Listed> {
  const inode = await reader.inode(ino);
  const type = TYPES.get(inode.mode & FILE_KIND.mask);
  assert.ok(type, `${path} has mode ${inode.mode.toString(8)}`);
  const { major, minor } = decodeDevice(inode.block);
  const xattrs = [...(await reader.xattrs(ino))].map(([name, value]) => [name, Buffer.from(value).toString("base64")] as const);
  return {
    path: Buffer.from(path, "latin1").toString(),
    type,
    mode: (inode.mode & 0o7777).toString(8).padStart(4, "0"),
    uid: inode.uid,
    gid: inode.gid,
    mtime: `${inode.mtime.seconds}.${String(inode.mtime.nanoseconds).padStart(9, "0")}`,
    ino,
    nlink: inode.links,
    size: type === "dir" ? null : inode.size,
    ...(type === "symlink" && { target: Buffer.from(await reader.linkTarget(ino), "latin1").toString() }),
    ...((type === "chr" || type === "blk") && { rdev: `${major}:${minor}` }),
    ...(type === "reg" && { sha256: await sha256Of(await reader.file(ino)) }),
    ...(xattrs.length > 0 && { xattrs_b64: Object.fromEntries(xattrs) }),
  };
}

async function sha256Of(file: ByteSource): Promise<string> {
  return createHash("sha256")
    .update(await file.read(0, file.size))
    .digest("hex");
}

function byPath(a: Listed, b: Listed): number {
  return a.path < b.path ? -1 : 1;
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
    const found = await listTree(await stacked(blobs()));
    assert.deepEqual(found.toSorted(byPath), listing(tree).toSorted(byPath));
  });
}
