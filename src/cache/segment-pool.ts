import { mkdir, readdir, stat, unlink } from "node:fs/promises";
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
  /** Disk space to stay under; somewhat more may be in use for a moment, or while several processes share the directory. */
  readonly capacityBytes: number;
  /** Unit of fetching and of integrity. */
  readonly chunkBytes: number;
  /** Called once, when the disk first fails a read or a write. Reading goes on from the inner sources. */
  readonly onDiskFailure?: (error: unknown) => void;
  /** Called after files of the cache were removed to stay under the capacity. */
  readonly onEviction?: ((eviction: Eviction) => void) | undefined;
}

const FILE_NAME = /^sha(256|512)-[0-9a-f]+\.\d+\.\d+$/;
/** Eviction goes on to this part of the capacity, so that it does not run again at once. */
const LOW_MARK = 0.9;

interface OpenSegment {
  readonly file: SegmentFile;
  readonly chunks: SharedChunks;
  readonly forget: () => void;
}

/** The segment files in a directory: opens them, and evicts whole ones, least recently used first, when they are too many. */
export class SegmentPool {
  readonly directory: string;
  readonly chunkBytes: number;
  readonly ticks = new Int32Array(new SharedArrayBuffer(4));
  readonly #capacityBytes: number;
  readonly #onDiskFailure: ((error: unknown) => void) | undefined;
  readonly #onEviction: SegmentPoolOptions["onEviction"];
  readonly #open = new Set<OpenSegment>();
  #usedBytes: number;
  #unscannedBytes = 0;
  #eviction: Promise<void> | undefined;
  #failed = false;

  private constructor(directory: string, options: SegmentPoolOptions, usedBytes: number) {
    this.directory = directory;
    this.chunkBytes = options.chunkBytes;
    this.#capacityBytes = options.capacityBytes;
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
      this.#open.add({ file, chunks, forget });
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
    // Other processes may fill the directory too; look at it now and then even when our own count is low.
    if (this.#usedBytes <= this.#capacityBytes && this.#unscannedBytes < this.#capacityBytes / 16) return;
    this.#eviction ??= this.#evict().finally(() => (this.#eviction = undefined));
    await this.#eviction;
  }

  diskFailed(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#onDiskFailure?.(error);
  }

  #pathOf(key: string, index: number): string {
    return join(this.directory, `${key.replace(":", "-")}.${this.chunkBytes}.${index}`);
  }

  async #evict(): Promise<void> {
    const files = await listSegments(this.directory);
    this.#usedBytes = totalBytes(files);
    this.#unscannedBytes = 0;
    if (this.#usedBytes <= this.#capacityBytes) return;
    const evicted = { files: 0, bytes: 0 };
    for (const { path, bytes, owners } of this.#oldestFirst(files)) {
      if (this.#usedBytes <= this.#capacityBytes * LOW_MARK) break;
      await unlinkIfThere(path);
      for (const owner of owners) await this.#drop(owner);
      this.#usedBytes -= bytes;
      evicted.files++;
      evicted.bytes += bytes;
    }
    this.#onEviction?.({ ...evicted, usedBytes: this.#usedBytes });
  }

  /** Segments that this process does not use come first, by age; then its own, by last use. */
  #oldestFirst(files: readonly SegmentOnDisk[]): (SegmentOnDisk & { owners: OpenSegment[] })[] {
    const owned = files.map((file) => ({ ...file, owners: [...this.#open].filter((segment) => segment.file.path === file.path) }));
    const lastUse = (owners: OpenSegment[]): number =>
      Math.max(-1, ...owners.map(({ chunks, file }) => Atomics.load(chunks.data.lastUses, file.index)));
    return owned.sort((a, b) => lastUse(a.owners) - lastUse(b.owners) || a.modifiedMs - b.modifiedMs);
  }

  async #drop(segment: OpenSegment): Promise<void> {
    if (!this.#open.delete(segment)) return;
    segment.chunks.withdraw(segment.file.index);
    segment.forget();
    await segment.file.close();
  }
}

interface SegmentOnDisk {
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
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
    return { path, bytes: blocks * 512, modifiedMs: mtimeMs };
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
