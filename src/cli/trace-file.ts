import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { readPrefetchFile } from "../device/prefetch-file.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { TraceRecord } from "../formats/trace/layout.ts";

/** The absolute path of a file that is there. Throws `NOT_FOUND`. */
export async function checkReadable(path: string): Promise<string> {
  try {
    await access(path, constants.R_OK);
  } catch (cause) {
    throw new LazyError("NOT_FOUND", `${path}: ${messageOf(cause)}`, { cause });
  }
  return resolve(path);
}

/** The absolute path of a file that can be written later, as far as that can be told now. Throws `USAGE`. */
export async function checkWritable(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    await access(dirname(absolute), constants.W_OK | constants.X_OK);
    const found = await stat(absolute).catch(() => undefined);
    if (found !== undefined && !found.isFile()) throw new Error("is not a regular file");
  } catch (cause) {
    throw new LazyError("USAGE", `${path}: no file can be written there: ${messageOf(cause)}`, { cause });
  }
  return absolute;
}

/** The records of a trace. Throws `USAGE` for a list of paths, which has none. */
export async function readTrace(path: string): Promise<readonly TraceRecord[]> {
  const file = await readPrefetchFile(path);
  if (file.kind === "trace") return file.records;
  throw new LazyError("USAGE", `${path}: is a list of paths; this is for traces, which lazylayer trace record makes`);
}
