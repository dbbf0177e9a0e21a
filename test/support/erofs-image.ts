import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { checkRange, type ByteSource } from "../../src/bytes/source.ts";
import { ErofsReader } from "../../src/formats/erofs/erofs-reader.ts";
import type { ErofsWriter } from "../../src/formats/erofs/erofs-writer.ts";
import type { Timespec } from "../../src/tree/entry.ts";
import type { FilesystemReader } from "../../src/tree/filesystem-reader.ts";
import type { LayerBlocks } from "../../src/tree/filesystem-writer.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import type { TreeInode } from "../../src/tree/memory-tree.ts";
import { execute, run } from "./command.ts";
import { directoryListing, expectedListing, type LayerEntry, type Listing } from "./ext4-image.ts";

const BLOCK_BYTES = 4096;
const NS = 1_000_000_000n;

/** A path as every reader of an EROFS filesystem should show it: without access and change times, which it does not keep. */
export type ErofsListing = Map<string, object>;

/** Applies a whole layer. */
export function applyErofsLayer(writer: ErofsWriter, layer: { entries: readonly LayerEntry[]; payloadBlocks: number }): LayerBlocks {
  writer.beginLayer(layer.payloadBlocks);
  for (const change of layerChanges(layer.entries)) writer.apply(change);
  return writer.finishLayer();
}

/** The content of a block of the payload of a layer, as the support of ext4's tests has it. */
function payloadBytes(layer: number, payloadBlock: number): Buffer {
  return Buffer.alloc(BLOCK_BYTES, `layer ${layer} block ${payloadBlock} `);
}

/** A sparse image file that layers are written into. */
export class ErofsImage {
  readonly path: string;
  readonly #file: number;

  private constructor(path: string, file: number) {
    this.path = path;
    this.#file = file;
  }

  static create(path: string, bytes: number): ErofsImage {
    const file = openSync(path, "w+");
    ftruncateSync(file, bytes);
    return new ErofsImage(path, file);
  }

  /** An image that exists, to be written on; made longer, so that it has room. */
  static open(path: string, bytes: number): ErofsImage {
    const file = openSync(path, "r+");
    ftruncateSync(file, bytes);
    return new ErofsImage(path, file);
  }

  close(): void {
    closeSync(this.#file);
  }

  /** Writes a layer's metadata, and its payload. */
  write(writer: ErofsWriter, blocks: LayerBlocks, layer: number): void {
    for (const block of blocks.metadata) writeSync(this.#file, writer.metadataBlock(block), 0, BLOCK_BYTES, block * BLOCK_BYTES);
    for (const place of blocks.payload) {
      for (let index = 0; index < place.blocks; index++) {
        writeSync(this.#file, payloadBytes(layer, place.payloadBlock + index), 0, BLOCK_BYTES, (place.block + index) * BLOCK_BYTES);
      }
    }
  }

  patch(offset: number, bytes: Uint8Array): void {
    writeSync(this.#file, bytes, 0, bytes.length, offset);
  }

  /** The image as a source, which lives as long as the image is open. */
  source(observe: (offset: number, length: number) => void = () => {}): ByteSource {
    const file = this.#file;
    const source = { name: this.path, size: fstatSync(file).size, close: async (): Promise<void> => {} };
    const read = async (offset: number, length: number): Promise<Uint8Array> => {
      checkRange(source, offset, length);
      observe(offset, length);
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length;) done += readSync(file, bytes, done, length - done, offset + done);
      return bytes;
    };
    return { ...source, read };
  }

  async listing(): Promise<ErofsListing> {
    return await erofsListing(await ErofsReader.open(this.source()));
  }

  async assertClean(when = ""): Promise<void> {
    const { status, stdout, stderr } = await execute("fsck.erofs", ["-d2", this.path]);
    assert.deepEqual({ status, said: `${stdout.toString()}${stderr}` }, { status: 0, said: "" }, `fsck.erofs ${when}`);
  }

  /** The tree as the kernel shows it. */
  async kernelListing(): Promise<ErofsListing> {
    return timesKept(await this.mounted(directoryListing));
  }

  /** How many links the kernel counts for the root and what is in it. */
  async kernelLinks(names: readonly string[]): Promise<Record<string, number>> {
    return await this.mounted(async (directory) => {
      const counted = names.map((name) => [name, statSync(`${directory}/${name}`).nlink] as const);
      return { root: statSync(directory).nlink, ...Object.fromEntries(counted) };
    });
  }

  /** Mounts the image read-only for as long as `use` takes. */
  async mounted<T>(use: (directory: string) => Promise<T>): Promise<T> {
    assert.equal(process.geteuid?.(), 0, "this test mounts filesystems: run it as root");
    const mountPoint = `${this.path}.mnt`;
    mkdirSync(mountPoint, { recursive: true });
    await run("mount", ["-t", "erofs", "-o", "ro,loop", this.path, mountPoint]);
    try {
      return await use(mountPoint);
    } finally {
      await run("umount", [mountPoint]);
    }
  }
}

/** A listing without what EROFS does not keep. */
function timesKept(listing: Listing): ErofsListing {
  return new Map([...listing].map(([path, { times, ...rest }]) => [path, { ...rest, mtime: times[1] }]));
}

/** What a tree in memory should look like on a filesystem. Its content is what `payloadDigest` gives. */
export function expectedErofsListing(tree: Iterable<[string, TreeInode<string>]>): ErofsListing {
  const paths = [...tree];
  const times = new Map(paths.map(([path, { mtime }]) => [path, nanoseconds(mtime)]));
  return new Map([...timesKept(expectedListing(paths))].map(([path, listed]) => [path, { ...listed, mtime: times.get(path) }]));
}

function nanoseconds(time: Timespec): string {
  return (BigInt(time.seconds) * NS + BigInt(time.nanoseconds)).toString();
}

const KIND_OF = {
  file: 0x8000,
  directory: 0x4000,
  symlink: 0xa000,
  character: 0x2000,
  block: 0x6000,
  fifo: 0x1000,
  socket: 0xc000,
  unknown: 0,
};

/** The tree as a reader shows it. */
export async function erofsListing(reader: FilesystemReader): Promise<ErofsListing> {
  const paths: [string, number][] = [];
  const pending: [string, number][] = [["", reader.root]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [path, number] = next;
    paths.push(next);
    if ((await reader.inode(number)).type !== "directory") continue;
    for (const child of await reader.list(number)) pending.push([path === "" ? child.name : `${path}/${child.name}`, child.inode]);
  }
  const groups = new Map<number, string>();
  const listing: ErofsListing = new Map();
  for (const [path, number] of paths.toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (!groups.has(number)) groups.set(number, path);
    listing.set(path, { ...(await readPath(reader, number)), group: groups.get(number)! });
  }
  return listing;
}

async function readPath(reader: FilesystemReader, number: number): Promise<object> {
  const { type, mode, uid, gid, size, major, minor, mtime } = await reader.inode(number);
  return {
    kind: KIND_OF[type],
    mode,
    uid,
    gid,
    size: type === "file" ? size : 0,
    mtime: nanoseconds(mtime),
    link: type === "symlink" ? await reader.linkTarget(number) : "",
    device: [major, minor],
    xattrs: [...(await reader.xattrs(number))].map(([name, value]) => [name, Buffer.from(value).toString("hex")]),
    content: type === "file" ? await readDigest(reader, number) : undefined,
  };
}

async function readDigest(reader: FilesystemReader, number: number): Promise<string> {
  const file = await reader.file(number);
  const digest = createHash("sha1");
  let done = 0;
  for (const { offset, length } of await reader.extents(number)) {
    for (let at = Math.max(done, Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES); at < offset + length; at += BLOCK_BYTES) {
      const block = Buffer.from(await file.read(at, Math.min(BLOCK_BYTES, file.size - at)));
      if (block.some((byte) => byte !== 0)) digest.update(`${at}:`).update(block);
      done = at + BLOCK_BYTES;
    }
  }
  return digest.digest("hex");
}
