import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";
import { z } from "zod";
import type { ByteSource } from "../../src/bytes/source.ts";
import { Ext4Reader } from "../../src/formats/ext4/ext4-reader.ts";
import { decodeDevice } from "../../src/formats/ext4/inode.ts";
import { ROOT_INODE } from "../../src/formats/ext4/layout.ts";
import { FILE_KIND } from "../../src/tree/file-kind.ts";

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

/** A file of testdata, decompressed if it is a .zst. */
export function load(name: string): Buffer {
  const bytes = readFileSync(new URL(name, TESTDATA));
  return name.endsWith(".zst") ? zstdDecompressSync(bytes) : bytes;
}

/** A recorded tree of testdata/overlaybd, without what overlaybd's filesystems have of their own. */
function recordedTree(name: string): Listed[] {
  const lines = load(`overlaybd/${name}.jsonl.zst`).toString().trimEnd().split("\n");
  return lines.map((line) => listedLine.parse(JSON.parse(line))).filter(({ path }) => path !== "lost+found");
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

/**
 * The device's tree is the recorded one. Unless `inodes` is given, it need not have been made by overlaybd alone: other inode numbers will
 * do if they link the same paths, and so will other times of what has several links, to which overlaybd gives those of the last link.
 */
export async function assertTree(device: ByteSource, recorded: string, { inodes = false } = {}): Promise<void> {
  const found = (await listTree(device)).toSorted(byPath);
  const expected = recordedTree(recorded).toSorted(byPath);
  assert.deepEqual(inodes ? found : grouped(found), inodes ? expected : grouped(expected));
}

/** With the place of an inode's first path instead of its number. */
function grouped(listed: readonly Listed[]): Listed[] {
  const first = new Map<number, number>();
  return listed.map((entry, at) => {
    if (!first.has(entry.ino)) first.set(entry.ino, at);
    const mtime = entry.type === "reg" && entry.nlink > 1 ? "" : entry.mtime;
    return { ...entry, mtime, ino: first.get(entry.ino) ?? at };
  });
}

function byPath(a: Listed, b: Listed): number {
  return a.path < b.path ? -1 : 1;
}
