import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { checkRange, type ByteSource } from "../../src/bytes/source.ts";
import { Ext4Reader } from "../../src/formats/ext4/ext4-reader.ts";
import type { Ext4Writer } from "../../src/formats/ext4/ext4-writer.ts";
import type { LayerBlocks, PayloadEntry } from "../../src/tree/filesystem-writer.ts";
import { clampTime, decodeDevice } from "../../src/formats/ext4/inode.ts";
import { ROOT_INODE } from "../../src/formats/ext4/layout.ts";
import { FILE_KIND } from "../../src/tree/file-kind.ts";
import type { Timespec } from "../../src/tree/entry.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import type { TreeInode } from "../../src/tree/memory-tree.ts";
import { execute, run } from "./command.ts";
import { treeEntry } from "./tree-entry.ts";

const BLOCK_BYTES = 4096;
const LISTING = fileURLToPath(new URL("ext4-listing.py", import.meta.url));
const NS = 1_000_000_000n;

/** An entry with the layer that it came with, which its content depends on. */
export interface LayerEntry extends PayloadEntry {
  readonly layer: number;
  /** The content's digest, where it is not part of a payload. */
  readonly digest?: string;
}

/** A path as every reader of a filesystem should show it. Hard links have equal `group`s: the first of their paths. */
export interface ListedPath {
  readonly kind: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Access, modification and change time in nanoseconds. */
  readonly times: readonly string[];
  readonly link: string;
  readonly device: readonly number[];
  readonly xattrs: readonly (readonly [name: string, hex: string])[];
  readonly content: string | undefined;
  readonly group: string;
}

export type Listing = Map<string, ListedPath>;

/** An entry with payload fields; a directory when the path ends with a slash. */
export function layerEntry(path: string, fields: Partial<LayerEntry> = {}): LayerEntry {
  return { ...treeEntry(path), payloadBlock: 0, runs: [], layer: 0, ...fields };
}

/** A block of the payload of a layer: different for every block. */
function payloadBytes(layer: number, payloadBlock: number): Buffer {
  return Buffer.alloc(BLOCK_BYTES, `layer ${layer} block ${payloadBlock} `);
}

/** What the file's blocks digest to, as `ext4-listing.py` does it. */
export function payloadDigest(entry: LayerEntry): string {
  if (entry.digest !== undefined) return entry.digest;
  const digest = createHash("sha1");
  let payloadBlock = entry.payloadBlock;
  for (const { fileBlock, blocks } of entry.runs) {
    for (let index = 0; index < blocks; index++) {
      const offset = (fileBlock + index) * BLOCK_BYTES;
      digest.update(`${offset}:`).update(payloadBytes(entry.layer, payloadBlock++).subarray(0, Math.max(0, entry.size - offset)));
    }
  }
  return digest.digest("hex");
}

/** Gives the entries of a layer their place in its payload, one after the other, and says how many blocks that takes. */
export function placePayload(entries: readonly LayerEntry[], layer: number): { entries: LayerEntry[]; payloadBlocks: number } {
  let payloadBlocks = 0;
  const placed = entries.map((entry) => {
    const payloadBlock = payloadBlocks;
    for (const { blocks } of entry.runs) payloadBlocks += blocks;
    return { ...entry, payloadBlock, layer };
  });
  return { entries: placed, payloadBlocks };
}

/** Applies a whole layer. */
export function applyLayer(writer: Ext4Writer, layer: { entries: readonly LayerEntry[]; payloadBlocks: number }): LayerBlocks {
  writer.beginLayer(layer.payloadBlocks);
  for (const change of layerChanges(layer.entries)) writer.apply(change);
  return writer.finishLayer();
}

/** A sparse image file that layers are written into. */
export class Ext4Image {
  readonly path: string;
  readonly #file: number;

  private constructor(path: string, file: number) {
    this.path = path;
    this.#file = file;
  }

  static create(path: string, bytes: number): Ext4Image {
    const file = openSync(path, "w+");
    ftruncateSync(file, bytes);
    return new Ext4Image(path, file);
  }

  /** An image that exists, to be written on. */
  static open(path: string): Ext4Image {
    return new Ext4Image(path, openSync(path, "r+"));
  }

  close(): void {
    closeSync(this.#file);
  }

  /** Writes a layer's metadata, and its payload as `payloadBytes` has it. */
  write(writer: Ext4Writer, blocks: LayerBlocks, layer: number): void {
    for (const block of blocks.metadata) writeSync(this.#file, writer.metadataBlock(block), 0, BLOCK_BYTES, block * BLOCK_BYTES);
    for (const place of blocks.payload) {
      for (let index = 0; index < place.blocks; index++) {
        writeSync(this.#file, payloadBytes(layer, place.payloadBlock + index), 0, BLOCK_BYTES, (place.block + index) * BLOCK_BYTES);
      }
    }
  }

  /** The image as a source, which lives as long as the image is open. */
  source(): ByteSource {
    const file = this.#file;
    const source = { name: this.path, size: fstatSync(file).size, close: async (): Promise<void> => {} };
    const read = async (offset: number, length: number): Promise<Uint8Array> => {
      checkRange(source, offset, length);
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length;) done += readSync(file, bytes, done, length - done, offset + done);
      return bytes;
    };
    return { ...source, read };
  }

  async openReader(): Promise<Ext4Reader> {
    return await Ext4Reader.open(this.source());
  }

  /** Everything e2fsck has to say beyond its five headings, and its exit status. */
  async check(): Promise<{ status: number | null; complaints: string[] }> {
    const { status, stdout, stderr } = await execute("e2fsck", ["-fn", this.path], { env: { LC_ALL: "C" } });
    const lines = `${stdout.toString()}${stderr}`.split("\n");
    return { status, complaints: lines.filter((line) => line !== "" && !/^(e2fsck 1\.|Pass [1-5]: )|: \d+\/\d+ files \(/.test(line)) };
  }

  async assertClean(when = ""): Promise<void> {
    assert.deepEqual(await this.check(), { status: 0, complaints: [] }, `e2fsck ${when}`);
  }

  /** The tree as the kernel shows it, mounted read-only. */
  async kernelListing(): Promise<Listing> {
    assert.equal(process.geteuid?.(), 0, "this test mounts filesystems: run it as root");
    const mountPoint = `${this.path}.mnt`;
    mkdirSync(mountPoint, { recursive: true });
    await run("mount", ["-t", "ext4", "-o", "ro,loop,noatime", this.path, mountPoint]);
    try {
      return await directoryListing(mountPoint);
    } finally {
      await run("umount", [mountPoint]);
    }
  }
}

interface ListedLine extends Omit<ListedPath, "kind" | "group" | "content"> {
  readonly path: string;
  readonly inode: number;
  readonly content: string | null;
}

function parseListing(lines: string): Listing {
  const groups = new Map<number, string>();
  const parsed = lines
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as ListedLine);
  const listing: Listing = new Map();
  for (const { path, inode, mode, content, size, ...rest } of parsed.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
    if (!groups.has(inode)) groups.set(inode, path);
    const kind = mode & FILE_KIND.mask;
    const { uid, gid, times, link, device, xattrs } = rest;
    const fields = { uid, gid, times, link, device, xattrs, content: content ?? undefined, group: groups.get(inode)! };
    listing.set(path, { kind, mode: mode & 0o7777, size: kind === FILE_KIND.file ? size : 0, ...fields });
  }
  return listing;
}

const KIND_OF = {
  file: FILE_KIND.file,
  directory: FILE_KIND.directory,
  symlink: FILE_KIND.symlink,
  character: FILE_KIND.character,
  block: FILE_KIND.block,
  fifo: FILE_KIND.fifo,
};

const KINDS = ["file", "directory", "symlink", "character", "block", "fifo"] as const;

function nanoseconds(time: Timespec): string {
  return (BigInt(time.seconds) * NS + BigInt(time.nanoseconds)).toString();
}

/** A directory's tree as the kernel shows it. */
export async function directoryListing(directory: string): Promise<Listing> {
  return parseListing(await run("python3", [LISTING, directory]));
}

/** The entries of a layer that makes the tree of a listing. */
export function listedEntries(listing: Listing): LayerEntry[] {
  return [...listing].map(([path, listed]) => {
    const { kind, mode, uid, gid, size, link, device, content, group } = listed;
    if (group !== path) return layerEntry(path, { type: "hardlink", link: group });
    const type = KINDS.find((known) => KIND_OF[known] === kind)!;
    const [atime, mtime, ctime] = listed.times.map((time) => {
      const seconds = BigInt.asIntN(64, (BigInt(time) - (((BigInt(time) % NS) + NS) % NS)) / NS);
      return { seconds: Number(seconds), nanoseconds: Number(BigInt(time) - seconds * NS) };
    });
    const xattrs = new Map(listed.xattrs.map(([name, hex]) => [name, Buffer.from(hex, "hex")]));
    const digest = content === undefined ? {} : { digest: content };
    return layerEntry(path, {
      type,
      mode,
      uid,
      gid,
      size,
      link,
      major: device[0],
      minor: device[1],
      atime,
      mtime,
      ctime,
      xattrs,
      ...digest,
    });
  });
}

/** What a tree in memory should look like on a filesystem. Its content is what `payloadDigest` gives. */
export function expectedListing(tree: Iterable<[string, TreeInode<string>]>): Listing {
  const groups = new Map<object, string>();
  const listing: Listing = new Map();
  for (const [path, inode] of [...tree].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (!groups.has(inode)) groups.set(inode, path);
    const { mode, uid, gid, size, link, content } = inode;
    listing.set(path, {
      kind: KIND_OF[inode.type],
      mode,
      uid,
      gid,
      size,
      link,
      content,
      times: [inode.atime, inode.mtime, inode.ctime].map((time) => nanoseconds(clampTime(time))),
      device: [inode.major, inode.minor],
      xattrs: [...inode.xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([name, value]) => [name, Buffer.from(value).toString("hex")]),
      group: groups.get(inode)!,
    });
  }
  return listing;
}

/** The tree as our reader shows it. */
export async function readerListing(reader: Ext4Reader): Promise<Listing> {
  const paths: [string, number][] = [];
  const pending: [string, number][] = [["", ROOT_INODE]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [path, number] = next;
    paths.push(next);
    if (((await reader.inode(number)).mode & FILE_KIND.mask) !== FILE_KIND.directory) continue;
    for (const child of await reader.list(number)) pending.push([path === "" ? child.name : `${path}/${child.name}`, child.inode]);
  }
  const groups = new Map<number, string>();
  const listing: Listing = new Map();
  for (const [path, number] of paths.toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (!groups.has(number)) groups.set(number, path);
    listing.set(path, { ...(await readPath(reader, number)), group: groups.get(number)! });
  }
  return listing;
}

async function readPath(reader: Ext4Reader, number: number): Promise<Omit<ListedPath, "group">> {
  const inode = await reader.inode(number);
  const kind = inode.mode & FILE_KIND.mask;
  const device = kind === FILE_KIND.character || kind === FILE_KIND.block ? decodeDevice(inode.block) : { major: 0, minor: 0 };
  return {
    kind,
    mode: inode.mode & 0o7777,
    uid: inode.uid,
    gid: inode.gid,
    size: kind === FILE_KIND.file ? inode.size : 0,
    times: [inode.atime, inode.mtime, inode.ctime].map(nanoseconds),
    link: kind === FILE_KIND.symlink ? await reader.linkTarget(number) : "",
    device: [device.major, device.minor],
    xattrs: [...(await reader.xattrs(number))].map(([name, value]) => [name, Buffer.from(value).toString("hex")]),
    content: kind === FILE_KIND.file ? await readDigest(reader, number) : undefined,
  };
}

async function readDigest(reader: Ext4Reader, number: number): Promise<string> {
  const file = await reader.file(number);
  const digest = createHash("sha1");
  const mapped = await reader.extents(number, await reader.inode(number));
  const { blockBytes } = reader.superblock;
  for (const extent of mapped) {
    for (let at = extent.fileBlock * blockBytes; at < Math.min((extent.fileBlock + extent.blocks) * blockBytes, file.size);) {
      const start = Math.floor(at / BLOCK_BYTES) * BLOCK_BYTES;
      const block = Buffer.from(await file.read(start, Math.min(BLOCK_BYTES, file.size - start)));
      if (block.some((byte) => byte !== 0)) digest.update(`${start}:`).update(block);
      at = start + BLOCK_BYTES;
    }
  }
  return digest.digest("hex");
}
