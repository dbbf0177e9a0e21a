import { rename, rm, stat } from "node:fs/promises";
import { DiskFile } from "../bytes/file.ts";
import { syncDirectory } from "../bytes/file-directories.ts";
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

  private constructor(directory: string, file: DiskFile, digest: Digest, missing: readonly FileExtent[]) {
    this.#directory = directory;
    this.#file = file;
    this.#digest = digest;
    this.missing = missing;
  }

  /**
   * Makes the file, or goes on with the one that is there. Throws as the disk does, and what `findDataExtents`
   * throws; without the latter the file begins anew.
   */
  static async open(
    directory: string,
    { digest, size }: Pick<Descriptor, "digest" | "size">,
    findDataExtents: FindDataExtents | undefined,
  ): Promise<DownloadFile> {
    const path = partialPath(directory);
    const file = await openOrCreate(path);
    try {
      const there = findDataExtents !== undefined && file.size === size ? await findStored(path, file, findDataExtents) : [];
      if (there.length === 0) await file.truncate(0);
      await file.truncate(size);
      return new DownloadFile(directory, file, digest, missingOf(size, there));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#file.write(offset, bytes);
  }

  /**
   * Gives the file its final name, once it is on its disk and has the blob's digest. Otherwise it is thrown away: `CORRUPT` for another
   * digest, `UNAVAILABLE` when the disk fails. Nothing happens to it when the signal is aborted.
   */
  async commit(signal: AbortSignal): Promise<void> {
    const path = partialPath(this.#directory);
    try {
      await this.#file.flush();
      await checkDigest(this.#file, this.#digest, signal);
      await rename(path, wholePath(this.#directory));
      await syncDirectory(this.#directory);
    } catch (error) {
      if (!signal.aborted) await rm(path, { force: true });
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
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

async function findStored(path: string, file: DiskFile, findDataExtents: FindDataExtents): Promise<readonly FileExtent[]> {
  await file.flush(); // some file systems count blocks only when they are on the disk
  return (await stat(path)).blocks === 0 ? [] : await findDataExtents(path);
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
