import { rename, rm, stat, statfs } from "node:fs/promises";
import { DiskFile } from "../bytes/file.ts";
import { syncPath } from "../bytes/file-directories.ts";
import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import type { FileExtent } from "../formats/lsmt/unsealed-layer.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";

/** Where a layer's directory has a blob that is not all there yet, and where it has it when it is: names that overlaybd uses. */
const PARTIAL_NAME = ".download";
const WHOLE_NAME = "overlaybd.commit";

/** No filesystem has larger blocks: where a hole ends inside of one, what is beside it is fetched again. */
export const UNIT_BYTES = 64 * 1024;
const HASHED_BYTES = 2 ** 20;
/** Written at most before the disk has it: a whole layer at its end would keep the disk from everybody else. */
const UNFLUSHED_BYTES = 32 * 2 ** 20;

/** Finds where a file has data and no holes, ascending. */
export type FindDataExtents = (path: string) => Promise<readonly FileExtent[]>;

export function partialPath(directory: string): string {
  return `${directory}/${PARTIAL_NAME}`;
}

export function wholePath(directory: string): string {
  return `${directory}/${WHOLE_NAME}`;
}

/**
 * A blob on its way to a layer's directory: a sparse file of the blob's size, whose holes are what is missing. So it says by itself
 * what an earlier process has fetched, or another program; whether that is right only the digest of the whole tells. One process at a
 * time may have it open.
 */
export class DownloadFile {
  /** What is not there, ascending; units of `UNIT_BYTES`, but for the end. */
  readonly missing: readonly FileExtent[];
  readonly #directory: string;
  readonly #file: DiskFile;
  readonly #digest: Digest;
  #unflushedBytes = 0;

  private constructor(directory: string, file: DiskFile, digest: Digest, missing: readonly FileExtent[]) {
    this.#directory = directory;
    this.#file = file;
    this.#digest = digest;
    this.missing = missing;
  }

  /**
   * Makes the file, or goes on with the one that is there; without `findDataExtents`, or where it cannot tell, it begins anew.
   * Throws `UNAVAILABLE` when there is no room for the rest, and as the disk does.
   */
  static async open(
    directory: string,
    { digest, size }: Pick<Descriptor, "digest" | "size">,
    findDataExtents: FindDataExtents | undefined,
  ): Promise<DownloadFile> {
    const file = await openOrCreate(partialPath(directory));
    try {
      const there = findDataExtents !== undefined && file.size === size ? await findStored(file, findDataExtents) : [];
      if (there.length === 0) await file.truncate(0);
      await file.truncate(size);
      const missing = missingOf(size, there);
      await checkRoom(directory, missing);
      return new DownloadFile(directory, file, digest, missing);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#file.write(offset, bytes);
    this.#unflushedBytes += bytes.length;
    if (this.#unflushedBytes >= UNFLUSHED_BYTES) await this.#flush();
  }

  /**
   * Gives the file its final name, once it is on its disk and has the blob's digest. With another digest it is thrown away, and `CORRUPT`
   * thrown. Nothing happens to it when the signal is aborted.
   */
  async commit(signal: AbortSignal): Promise<void> {
    await this.#flush();
    try {
      await checkDigest(this.#file, this.#digest, signal);
    } catch (error) {
      if (!signal.aborted) await throwAway(this.#file);
      throw error;
    }
    await rename(partialPath(this.#directory), wholePath(this.#directory));
    await syncPath(this.#directory);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    this.#unflushedBytes = 0;
    await flushOrThrowAway(this.#file);
  }
}

/** Throws `CORRUPT` when the content is another than the digest's, and the signal's reason when it is aborted meanwhile. */
export async function checkDigest(file: ByteSource, digest: Digest, signal: AbortSignal): Promise<void> {
  const hash = new DigestHash();
  for (let at = 0; at < file.size; at += HASHED_BYTES) {
    signal.throwIfAborted();
    hash.update(await file.read(at, Math.min(HASHED_BYTES, file.size - at)));
  }
  const found = hash.digest();
  if (found !== digest) throw corrupt(`${file.name}: content has digest ${found}, expected ${digest}`);
}

async function openOrCreate(path: string): Promise<DiskFile> {
  try {
    return await DiskFile.open(path);
  } catch (error) {
    if (error instanceof LazyError && error.code === "NOT_FOUND") return await DiskFile.create(path);
    throw error;
  }
}

/** What the disk has not taken once may seem to be there for a while, so nothing of the file is kept then. */
async function flushOrThrowAway(file: DiskFile): Promise<void> {
  try {
    await file.flush();
  } catch (error) {
    await throwAway(file);
    throw error;
  }
}

async function throwAway({ name }: DiskFile): Promise<void> {
  await rm(name, { force: true });
}

async function findStored(file: DiskFile, findDataExtents: FindDataExtents): Promise<readonly FileExtent[]> {
  await flushOrThrowAway(file); // some file systems count blocks only when they are on the disk
  if ((await stat(file.name)).blocks === 0) return [];
  try {
    return await findDataExtents(file.name);
  } catch (error) {
    if (error instanceof LazyError && error.code === "UNSUPPORTED") return [];
    throw error;
  }
}

/** A download that fills the disk up harms others, and ends with nothing. */
async function checkRoom(directory: string, missing: readonly FileExtent[]): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const needed = missing.reduce((sum, { length }) => sum + length, 0);
  if (needed <= bavail * bsize) return;
  throw new LazyError("UNAVAILABLE", `${directory}: has room for ${bavail * bsize} bytes, ${needed} are missing of the layer`);
}

function missingOf(size: number, there: readonly FileExtent[]): FileExtent[] {
  const missing: FileExtent[] = [];
  const add = (start: number, end: number): void => {
    if (start >= end) return;
    const from = Math.max(Math.floor(start / UNIT_BYTES) * UNIT_BYTES, endOf(missing.at(-1)));
    const to = Math.min(Math.ceil(end / UNIT_BYTES) * UNIT_BYTES, size);
    if (from < to) missing.push({ offset: from, length: to - from });
  };
  let at = 0;
  for (const { offset, length } of there) {
    add(at, Math.min(offset, size));
    at = offset + length;
  }
  add(at, size);
  return missing;
}

function endOf(extent: FileExtent | undefined): number {
  return extent === undefined ? 0 : extent.offset + extent.length;
}
