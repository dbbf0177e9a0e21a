import { mkdir, readdir, stat, statfs, unlink } from "node:fs/promises";
import { join } from "node:path";
import { SegmentFile } from "./segment-file.ts";
import type { SharedChunks } from "./shared-chunks.ts";

/** What was dropped in one go. */
export interface Eviction {
  readonly files: number;
  readonly bytes: number;
  /** What is left in the directory. */
  readonly usedBytes: number;
}

export interface SegmentPoolOptions {
  /** Disk space to stay under, for all processes that share the directory; somewhat more may be in use for a moment. */
  readonly capacityBytes: number;
  /** Unit of fetching and of integrity. */
  readonly chunkBytes: number;
  /** How often other processes are told which segments are used here, and files are let go that others have evicted. Default 15,000. */
  readonly tellMs?: number | undefined;
  /** Called once, when the disk first fails a read or a write. Reading goes on from the inner sources. */
  readonly onDiskFailure?: (error: unknown) => void;
  /** Called after files of the cache were removed to stay under the capacity. */
  readonly onEviction?: ((eviction: Eviction) => void) | undefined;
}

const FILE_NAME = /^sha(256|512)-[0-9a-f]+\.\d+\.\d+$/;
/** Eviction goes on to this part of the capacity, so that it does not run again at once. */
const LOW_MARK = 0.9;
/** Room that is left to others on the disk: so much, or the part below of a small disk. Eviction goes on to twice of it. */
const MIN_FREE_BYTES = 2 ** 30;
const MIN_FREE_FRACTION = 1 / 20;
/** The directory is looked at whenever this process has stored this part of the capacity, as other processes may fill it too ... */
const SCAN_FRACTION = 1 / 256;
/** ... or this much. */
const MAX_UNSCANNED_BYTES = 64 * 2 ** 20;
const TELL_MS = 15_000;

interface OpenSegment {
  readonly file: SegmentFile;
  readonly chunks: SharedChunks;
  readonly forget: () => void;
  /** Tick of the last use that others have been told of. */
  toldUse: number;
}

/**
 * The segment files in a directory: opens them, and evicts whole ones, least recently used first, when they are too many. Processes that
 * share the directory see by a file's time of modification when it was used last.
 */
export class SegmentPool {
  readonly directory: string;
  readonly chunkBytes: number;
  readonly ticks = new Int32Array(new SharedArrayBuffer(4));
  readonly #capacityBytes: number;
  readonly #tellMs: number;
  readonly #onDiskFailure: ((error: unknown) => void) | undefined;
  readonly #onEviction: SegmentPoolOptions["onEviction"];
  readonly #open = new Set<OpenSegment>();
  #usedBytes: number;
  #unscannedBytes = 0;
  #eviction: Promise<number> | undefined;
  #telling: NodeJS.Timeout | undefined;
  #failed = false;

  private constructor(directory: string, options: SegmentPoolOptions, usedBytes: number) {
    this.directory = directory;
    this.chunkBytes = options.chunkBytes;
    this.#capacityBytes = options.capacityBytes;
    this.#tellMs = options.tellMs ?? TELL_MS;
    this.#onDiskFailure = options.onDiskFailure;
    this.#onEviction = options.onEviction;
    this.#usedBytes = usedBytes;
  }

  static async open(directory: string, options: SegmentPoolOptions): Promise<SegmentPool> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return new SegmentPool(directory, options, totalBytes(await listSegments(directory)));
  }

  /** Whether there is a segment already; opening makes one. */
  async hasSegment(key: string, index: number): Promise<boolean> {
    return await stat(this.#pathOf(key, index)).then(
      () => true,
      () => false,
    );
  }

  /** Opens a segment for a cached source; undefined when the disk refuses. */
  async openSegment(key: string, index: number, chunks: SharedChunks, forget: () => void): Promise<SegmentFile | undefined> {
    const path = this.#pathOf(key, index);
    try {
      const file = await SegmentFile.open(path, key, index, chunks);
      this.#open.add({ file, chunks, forget, toldUse: -1 });
      this.#telling ??= setInterval(() => void this.#tell().catch((error: unknown) => this.diskFailed(error)), this.#tellMs).unref();
      return file;
    } catch (error) {
      this.diskFailed(error);
      return undefined;
    }
  }

  async closeSegment(file: SegmentFile): Promise<void> {
    for (const segment of this.#open) if (segment.file === file) await this.#drop(segment);
  }

  /** Counts stored bytes and evicts when they are too many. */
  async stored(bytes: number): Promise<void> {
    this.#usedBytes += bytes;
    this.#unscannedBytes += bytes;
    const mayStore = Math.min(this.#capacityBytes * SCAN_FRACTION, MAX_UNSCANNED_BYTES);
    // Twice, as an eviction that was under way may not have seen these bytes.
    for (let tries = 0; tries < 2; tries++) {
      if (this.#usedBytes <= this.#capacityBytes && this.#unscannedBytes < mayStore) return;
      await this.#makeRoom();
    }
  }

  /** Whether a write that failed is worth another try, as there was no room for it and there is now. */
  async madeRoomAfter(error: unknown): Promise<boolean> {
    return error instanceof Error && "code" in error && error.code === "ENOSPC" && (await this.#makeRoom()) > 0;
  }

  /** Whatever is not kept because of it is read from its place. */
  diskFailed(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#onDiskFailure?.(error);
  }

  #pathOf(key: string, index: number): string {
    return join(this.directory, `${key.replace(":", "-")}.${this.chunkBytes}.${index}`);
  }

  /** Lets others know what is used here, and lets go what others have evicted. */
  async #tell(): Promise<void> {
    const uses = [...this.#open].map((segment) => ({ segment, use: lastUseOf(segment) }));
    // In their order, as times may be all that eviction goes by.
    for (const { segment, use } of uses.sort((a, b) => a.use - b.use)) {
      if (!this.#open.has(segment)) continue;
      if (await segment.file.isEvicted()) await this.#drop(segment);
      else if (use !== segment.toldUse) await segment.file.touch();
      segment.toldUse = use;
    }
  }

  async #makeRoom(): Promise<number> {
    this.#eviction ??= this.#evict().finally(() => (this.#eviction = undefined));
    return await this.#eviction;
  }

  /** Answers how many bytes have gone. */
  async #evict(): Promise<number> {
    await this.#tell();
    const files = await listSegments(this.directory);
    this.#usedBytes = totalBytes(files);
    this.#unscannedBytes = 0;
    const tooMuch = this.#usedBytes > this.#capacityBytes ? this.#usedBytes - this.#capacityBytes * LOW_MARK : 0;
    const excess = Math.max(tooMuch, await missingRoom(this.directory));
    if (excess === 0 || files.length === 0) return 0;
    const evicted = { files: 0, bytes: 0 };
    for (const { path, bytes, owners } of this.#oldestFirst(files)) {
      if (evicted.bytes >= excess) break;
      await unlinkIfThere(path);
      for (const owner of owners) await this.#drop(owner);
      this.#usedBytes -= bytes;
      evicted.files++;
      evicted.bytes += bytes;
    }
    this.#onEviction?.({ ...evicted, usedBytes: this.#usedBytes });
    return evicted.bytes;
  }

  #oldestFirst(files: readonly SegmentOnDisk[]): (SegmentOnDisk & { owners: OpenSegment[] })[] {
    const owned = files.map((file) => ({ ...file, owners: [...this.#open].filter((segment) => segment.file.path === file.path) }));
    const lastUse = (owners: OpenSegment[]): number => Math.max(-1, ...owners.map(lastUseOf));
    return owned.sort((a, b) => a.usedMs - b.usedMs || lastUse(a.owners) - lastUse(b.owners));
  }

  async #drop(segment: OpenSegment): Promise<void> {
    if (!this.#open.delete(segment)) return;
    if (this.#open.size === 0) {
      clearInterval(this.#telling);
      this.#telling = undefined;
    }
    segment.chunks.withdraw(segment.file.index);
    segment.forget();
    await segment.file.close();
  }
}

function lastUseOf({ chunks, file }: OpenSegment): number {
  return Atomics.load(chunks.data.lastUses, file.index);
}

/** Bytes that have to go so that others find room on the disk. */
async function missingRoom(directory: string): Promise<number> {
  const { bavail, blocks, bsize } = await statfs(directory);
  const minimum = Math.min(MIN_FREE_BYTES, blocks * bsize * MIN_FREE_FRACTION);
  return bavail * bsize < minimum ? 2 * minimum - bavail * bsize : 0;
}

interface SegmentOnDisk {
  readonly path: string;
  readonly bytes: number;
  /** When it was used last, as far as its users have said. */
  readonly usedMs: number;
}

async function listSegments(directory: string): Promise<SegmentOnDisk[]> {
  const names = (await readdir(directory)).filter((name) => FILE_NAME.test(name));
  const found = await Promise.all(names.map(async (name) => await describe(join(directory, name))));
  return found.filter((file) => file !== undefined);
}

/** Undefined when another process evicted the file meanwhile. */
async function describe(path: string): Promise<SegmentOnDisk | undefined> {
  try {
    const { blocks, mtimeMs } = await stat(path);
    return { path, bytes: blocks * 512, usedMs: mtimeMs };
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function totalBytes(files: readonly SegmentOnDisk[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}
