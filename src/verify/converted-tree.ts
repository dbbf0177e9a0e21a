import type { ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import { Ext4Reader } from "../formats/ext4/ext4-reader.ts";
import { decodeDevice, isKind, type Inode } from "../formats/ext4/inode.ts";
import { FILE_KIND, ROOT_INODE } from "../formats/ext4/layout.ts";
import type { Extent } from "../formats/ext4/extent-tree.ts";
import type { ByteString, EntryType } from "../tree/entry.ts";
import { MemoryTree, type TreeInode } from "../tree/memory-tree.ts";
import { joinPath, quoted } from "../tree/path.ts";
import { ContentHash } from "./content-hash.ts";
import { WindowSource } from "./window-source.ts";

/** A path's inode in a converted image; hard links share one object. */
export type ConvertedInode = Omit<TreeInode<string>, "extents"> & { readonly number: number };

/** Every path of a converted image, directories before what is in them. */
export type ConvertedTree = ReadonlyMap<ByteString, ConvertedInode>;

/** What an image without layers shows: a root that nobody has touched. */
export const EMPTY_TREE: ConvertedTree = new Map([["", { ...new MemoryTree(() => "").get("")!, number: ROOT_INODE }]]);

const MAX_DEPTH = 2048; // as many names as the longest path can have
const READ_BYTES = 1 << 20;

const TYPE_OF: ReadonlyMap<number, Exclude<EntryType, "hardlink">> = new Map([
  [FILE_KIND.file, "file"],
  [FILE_KIND.directory, "directory"],
  [FILE_KIND.symlink, "symlink"],
  [FILE_KIND.character, "character"],
  [FILE_KIND.block, "block"],
  [FILE_KIND.fifo, "fifo"],
]);

/** Reads the whole tree of a device's filesystem, file contents included. The device stays open. */
export async function readConvertedTree(device: ByteSource, signal: AbortSignal, observe: (bytes: number) => void): Promise<ConvertedTree> {
  const windowed = new WindowSource(device);
  const reader = await Ext4Reader.open(windowed);
  const inodes = new Map<number, ConvertedInode>();
  const tree = new Map<ByteString, ConvertedInode>();
  await walk(reader, ROOT_INODE, "", 0, inodes, tree, signal);
  await hashFiles(reader, windowed, inodes, signal, observe);
  return tree;
}

async function walk(
  reader: Ext4Reader,
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

async function describe(reader: Ext4Reader, number: number): Promise<ConvertedInode> {
  const inode = await reader.inode(number);
  const type = TYPE_OF.get(inode.mode & FILE_KIND.mask);
  if (!type) throw corrupt(`${reader.name}: inode ${number} has mode 0${inode.mode.toString(8)}, which is no type of file`);
  const device = type === "character" || type === "block" ? decodeDevice(inode.block) : { major: 0, minor: 0 };
  return {
    number,
    type,
    mode: inode.mode & ~FILE_KIND.mask,
    uid: inode.uid,
    gid: inode.gid,
    mtime: inode.mtime,
    atime: inode.atime,
    ctime: inode.ctime,
    size: type === "file" ? inode.size : 0,
    link: type === "symlink" ? await reader.linkTarget(number) : "",
    ...device,
    xattrs: await reader.xattrs(number),
    content: undefined,
  };
}

/** Hashes all files in the order in which they lie on the device, so that it is read front to back. */
async function hashFiles(
  reader: Ext4Reader,
  device: ByteSource,
  inodes: Map<number, ConvertedInode>,
  signal: AbortSignal,
  observe: (bytes: number) => void,
): Promise<void> {
  const files: { inode: ConvertedInode; extents: Extent[] }[] = [];
  for (const inode of inodes.values()) {
    if (inode.type !== "file") continue;
    const record: Inode = await reader.inode(inode.number);
    files.push({ inode, extents: isKind(record, FILE_KIND.file) ? await reader.extents(inode.number, record) : [] });
  }
  files.sort((a, b) => (a.extents[0]?.block ?? 0) - (b.extents[0]?.block ?? 0));
  for (const { inode, extents } of files) {
    signal.throwIfAborted();
    const content = await hashExtents(device, extents, reader.superblock.blockBytes, inode.size, observe);
    Object.assign(inode, { content });
  }
}

async function hashExtents(
  device: ByteSource,
  extents: readonly Extent[],
  blockBytes: number,
  size: number,
  observe: (bytes: number) => void,
): Promise<string> {
  const hash = new ContentHash();
  for (const extent of extents) {
    if (extent.unwritten) continue;
    const start = extent.fileBlock * blockBytes;
    const length = Math.min(extent.blocks * blockBytes, size - start);
    for (let at = 0; at < length; at += READ_BYTES) {
      const bytes = await device.read(extent.block * blockBytes + at, Math.min(READ_BYTES, length - at));
      hash.write(start + at, bytes);
      observe(bytes.length);
    }
  }
  return hash.digest();
}
