import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { listImages } from "../../src/oci/image-selection.ts";
import { run } from "../support/command.ts";
import { convertLayout } from "../support/convert.ts";
import { assertClean, flatten } from "../support/flatten.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import type { TarMember } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const LISTING = fileURLToPath(new URL("../support/ext4-listing.py", import.meta.url));

interface ListedLine {
  readonly path: string;
  readonly mode: number;
  readonly inode: number;
  readonly links: number;
  readonly size: number;
  readonly sectors: number;
  readonly times: readonly [atime: string, mtime: string, ctime: string];
}

interface ListedPath {
  readonly isDirectory: boolean;
  readonly mtime: string;
  /** The first path of those that are the same file. */
  readonly group: string | undefined;
}

let images: ImagesLayout;
let scratch: TemporaryDirectory;

before(async () => {
  assert.equal(process.geteuid?.(), 0, "this test mounts filesystems: run it as root");
  images = await copyImages();
  scratch = await TemporaryDirectory.create();
});

after(async () => {
  await scratch[Symbol.asyncDispose]();
  await images[Symbol.asyncDispose]();
});

/** Everything below a directory that does not depend on the filesystem it is on. */
async function listDirectory(directory: string): Promise<Map<string, ListedPath>> {
  const lines = (await run("python3", [LISTING, directory])).trimEnd().split("\n");
  const parsed = lines.map((line) => JSON.parse(line) as ListedLine).toSorted((a, b) => (a.path < b.path ? -1 : 1));
  const groups = new Map<number, string>();
  const listing = new Map<string, ListedPath>();
  for (const { inode, links, sectors: _, times, size, ...rest } of parsed) {
    if (!groups.has(inode)) groups.set(inode, rest.path);
    const isDirectory = (rest.mode & 0o170000) === 0o040000;
    listing.set(rest.path, { ...rest, isDirectory, mtime: times[1], group: groups.get(inode), ...(!isDirectory && { links, size }) });
  }
  return listing;
}

/** The image as umoci unpacks it. */
async function unpackedTree(layout: string, tag: string): Promise<Map<string, ListedPath>> {
  const bundle = scratch.join(`${tag}.bundle`);
  await run("umoci", ["unpack", "--image", `${layout}:${tag}`, bundle]);
  return await listDirectory(`${bundle}/rootfs`);
}

/** The image as we convert it and the kernel shows it; e2fsck judges it behind every layer. */
async function convertedTree(layout: string, tag: string): Promise<Map<string, ListedPath>> {
  const to = scratch.join(`${tag}.converted`);
  await convertLayout(layout, tag, to);
  const store = await openLayoutStore(to);
  const [{ manifest }] = await listImages(store, { tag });
  const device = scratch.join(`${tag}.device`);
  await flatten(store, manifest, device, async (layer) => await assertClean(device, `${tag} with layer ${layer}`));
  const mountPoint = scratch.join(`${tag}.mnt`);
  await mkdir(mountPoint);
  await run("mount", ["-t", "ext4", "-o", "ro,loop,noatime", device, mountPoint]);
  try {
    const tree = await listDirectory(mountPoint);
    tree.delete("lost+found");
    return tree;
  } finally {
    await run("umount", [mountPoint]);
  }
}

async function assertSameTree(layout: string, tag: string): Promise<void> {
  const started = BigInt(Date.now()) * 1_000_000n;
  const expected = await unpackedTree(layout, tag);
  const found = await convertedTree(layout, tag);
  for (const [path, entry] of expected) {
    const ours = found.get(path);
    // A directory that no layer states, or that umoci still wrote into after setting its time, has the time of the unpacking.
    const isUnpacking = entry.isDirectory && BigInt(entry.mtime) >= started;
    assert.deepEqual(isUnpacking ? { ...ours, mtime: entry.mtime } : ours, entry, `${tag}: ${path}`);
  }
  assert.deepEqual([...found.keys()].toSorted(), [...expected.keys()].toSorted(), tag);
}

for (const tag of ["small-oci-v1", "small-oci-hardlink-lower", "mixed-nozstd", "mixed-duplayer", "mixed-emptyonly"]) {
  test(`${tag}: the kernel shows the tree that umoci unpacks`, async () => {
    await assertSameTree(images.directory, tag);
  });
}

for (const tag of ["mixed-all", "mixed-zstd-as-gzip", "multi-docker-v1", "multi-oci-nested"]) {
  test(`${tag}: e2fsck finds nothing behind any layer`, async () => {
    const to = scratch.join(`${tag}.checked`);
    await convertLayout(images.directory, tag, to);
    const store = await openLayoutStore(to);
    for (const { manifest } of await listImages(store, { tag })) {
      const device = scratch.join(`${tag}.checked-device`);
      await flatten(store, manifest, device, async (layer) => await assertClean(device, `${tag} with layer ${layer}`));
    }
  });
}

test("nanoseconds, xattrs, devices, hard links, whiteouts and links to directories: the same as umoci's", async () => {
  const mtime = { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
  const stamped = (member: TarMember): TarMember => ({ mtime, ...member });
  const capability = Buffer.from("0100000200040000000000000000000000000000", "hex");
  const lower = [
    { name: "./", mode: 0o750, uid: 1, gid: 2 },
    { name: "d/", mode: 0o1777, uid: 1000, gid: 70_000 },
    { name: "d/a", data: "a".repeat(5000), xattrs: { "user.note": "x", "trusted.note": "y", "security.capability": capability } },
    { name: "d/big", data: Buffer.alloc(300_000, 7) },
    { name: "d/b", type: "hardlink", link: "d/a" },
    { name: "d/suid", data: "s", mode: 0o6755 },
    { name: "dev/" },
    { name: "dev/sda", type: "block", major: 8, minor: 300, mode: 0o660 },
    { name: "dev/tty", type: "character", major: 4095, minor: 1_048_575, mode: 0o620, gid: 5 },
    { name: "dev/fifo", type: "fifo" },
    { name: "gone/" },
    { name: "gone/x", data: "x" },
    { name: "opaque/" },
    { name: "opaque/old", data: "old" },
    { name: "opaque/sub/" },
    { name: "opaque/sub/older", data: "older" },
    { name: "real/" },
    { name: "real/kept", data: "kept" },
    { name: "toreal", type: "symlink", link: "real", mode: 0o777 },
    { name: "long-link", type: "symlink", link: "x/".repeat(150), mode: 0o777 },
    { name: `deep/${"n".repeat(200)}`, data: "deep" },
    { name: "old", data: "", mtime: { seconds: -86_400, nanoseconds: 5 } },
    { name: "future", data: "", mtime: { seconds: 5_000_000_000, nanoseconds: 1 } },
  ].map((member) => stamped(member as TarMember));
  const upper = [
    { name: ".wh.gone" },
    { name: "opaque/new", data: "new" },
    { name: "opaque/.wh..wh..opq" },
    { name: "opaque/", mode: 0o700 },
    { name: "d/c", type: "hardlink", link: "d/a" },
    { name: "d/.wh.b" },
    { name: "toreal/through", data: "through the link" },
    { name: "toreal/" },
    { name: "d/suid/" },
    { name: "d/suid/now-a-directory", data: "" },
  ].map((member) => stamped(member as TarMember));
  await writeImage(scratch.join("odd"), "v1", { layers: [layerOf(lower), layerOf(upper)] });
  await assertSameTree(scratch.join("odd"), "v1");
});
