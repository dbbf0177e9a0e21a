import type { ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import { openFilesystem } from "../device/open-filesystem.ts";
import type { ByteString } from "../tree/entry.ts";
import type { DeviceExtent, FilesystemInode, FilesystemReader } from "../tree/filesystem-reader.ts";
import { MemoryTree, type TreeInode } from "../tree/memory-tree.ts";
import { joinPath, quoted } from "../tree/path.ts";
import { ContentHash } from "./content-hash.ts";
import { WindowSource } from "./window-source.ts";

/** A path's inode in a converted image; hard links share one object. */
export type ConvertedInode = Omit<TreeInode<string>, "extents" | "atime" | "ctime"> & Pick<FilesystemInode, "number" | "atime" | "ctime">;

/** Every path of a converted image, directories before what is in them. */
export type ConvertedTree = ReadonlyMap<ByteString, ConvertedInode>;

/** What an image without layers shows: a root that nobody has touched. */
export const EMPTY_TREE: ConvertedTree = new Map([["", { ...new MemoryTree(() => "").get("")!, number: 0 }]]);

const MAX_DEPTH = 2048; // as many names as the longest path can have
const READ_BYTES = 1 << 20;

/** Reads the whole tree of a device's filesystem, file contents included. The device stays open. */
export async function readConvertedTree(device: ByteSource, signal: AbortSignal, observe: (bytes: number) => void): Promise<ConvertedTree> {
  const windowed = new WindowSource(device);
  const reader = await openFilesystem(windowed);
  const inodes = new Map<number, ConvertedInode>();
  const tree = new Map<ByteString, ConvertedInode>();
  await walk(reader, reader.root, "", 0, inodes, tree, signal);
  await hashFiles(reader, windowed, inodes, signal, observe);
  return tree;
}

async function walk(
  reader: FilesystemReader,
  number: number,
  path: ByteString,
  depth: number,
  inodes: Map<number, ConvertedInode>,
  tree: Map<ByteString, ConvertedInode>,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  if (depth > MAX_DEPTH) throw corrupt(`${reader.name}: directories are nested more than ${MAX_DEPTH} deep at ${quoted(path)}`);
  const known = inodes.get(number);
  if (known?.type === "directory") throw corrupt(`${reader.name}: directory ${quoted(path)} is also somewhere else`);
  const inode = known ?? (await describe(reader, number));
  inodes.set(number, inode);
  tree.set(path, inode);
  if (inode.type !== "directory") return;
  const entries = (await reader.list(number)).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) await walk(reader, entry.inode, joinPath(path, entry.name), depth + 1, inodes, tree, signal);
}

async function describe(reader: FilesystemReader, number: number): Promise<ConvertedInode> {
  const { type, mode, uid, gid, mtime, atime, ctime, size, major, minor } = await reader.inode(number);
  if (type === "socket" || type === "unknown") throw corrupt(`${reader.name}: inode ${number} is of type ${type}, which no archive has`);
  return {
    number,
    type,
    mode,
    uid,
    gid,
    mtime,
    atime,
    ctime,
    size: type === "file" ? size : 0,
    link: type === "symlink" ? await reader.linkTarget(number) : "",
    major,
    minor,
    xattrs: await reader.xattrs(number),
    content: undefined,
  };
}

/** Hashes all files in the order in which they lie on the device, so that it is read front to back. */
async function hashFiles(
  reader: FilesystemReader,
  device: ByteSource,
  inodes: Map<number, ConvertedInode>,
  signal: AbortSignal,
  observe: (bytes: number) => void,
): Promise<void> {
  const files: { inode: ConvertedInode; extents: readonly DeviceExtent[] }[] = [];
  for (const inode of inodes.values()) {
    if (inode.type === "file") files.push({ inode, extents: await reader.extents(inode.number) });
  }
  files.sort((a, b) => (a.extents[0]?.deviceOffset ?? 0) - (b.extents[0]?.deviceOffset ?? 0));
  for (const { inode, extents } of files) {
    signal.throwIfAborted();
    Object.assign(inode, { content: await hashExtents(device, extents, observe) });
  }
}

async function hashExtents(device: ByteSource, extents: readonly DeviceExtent[], observe: (bytes: number) => void): Promise<string> {
  const hash = new ContentHash();
  for (const { offset, length, deviceOffset } of extents) {
    for (let at = 0; at < length; at += READ_BYTES) {
      const bytes = await device.read(deviceOffset + at, Math.min(READ_BYTES, length - at));
      hash.write(offset + at, bytes);
      observe(bytes.length);
    }
  }
  return hash.digest();
}
