import { randomBytes } from "node:crypto";
import { open, rename, rm, stat } from "node:fs/promises";
import { FileSource } from "../bytes/file.ts";
import { LazyError, messageOf, unsupported } from "../errors.ts";
import type { TraceRecord } from "../formats/trace/layout.ts";
import { MAX_PREFETCH_FILE_BYTES, parsePrefetchFile, type PrefetchFile } from "../formats/trace/prefetch-file.ts";
import { encodeTrace } from "../formats/trace/trace-writer.ts";

/** Reads a trace or a list of paths. Throws `NOT_FOUND` if there is no such file, and as `parsePrefetchFile` does. */
export async function readPrefetchFile(path: string): Promise<PrefetchFile> {
  const source = await openRegular(path);
  try {
    if (source.size > MAX_PREFETCH_FILE_BYTES) {
      throw unsupported(`${path}: ${source.size} bytes, expected a trace or a list of paths of at most ${MAX_PREFETCH_FILE_BYTES}`);
    }
    return parsePrefetchFile(await source.read(0, source.size), path);
  } finally {
    await source.close();
  }
}

/** Waiting for a pipe, or reading a device, is not meant. */
async function openRegular(path: string): Promise<FileSource> {
  try {
    if (!(await stat(path)).isFile()) throw new Error("is not a regular file");
    return await FileSource.open(path);
  } catch (cause) {
    throw new LazyError("NOT_FOUND", `${path}: ${messageOf(cause)}`, { cause });
  }
}

/** Writes a trace under another name first: the file is whole, or as it was before. Throws `UNAVAILABLE`. */
export async function writeTrace(path: string, records: readonly TraceRecord[]): Promise<void> {
  const partial = `${path}.${randomBytes(6).toString("hex")}.partial`;
  try {
    await using handle = await open(partial, "wx", 0o644);
    await handle.writeFile(encodeTrace(records));
    await rename(partial, path);
  } catch (cause) {
    await rm(partial, { force: true });
    throw new LazyError("UNAVAILABLE", `${path}: the trace cannot be written: ${messageOf(cause)}`, { cause });
  }
}
