import { stat } from "node:fs/promises";
import { FileSource } from "../bytes/file.ts";
import { LazyError, messageOf } from "../errors.ts";
import { ImageOpenError } from "./image-config-result.ts";

/** Opens a file that an image configuration names. `where` is the key that does. Throws `ImageOpenError`. */
export async function openLocalFile(path: string, where: string): Promise<FileSource> {
  try {
    // Pipes would be waited for, and directories say nothing until they are read.
    if (!(await stat(path)).isFile()) throw new LazyError("USAGE", `${path}: is not a regular file`);
    return await FileSource.open(path);
  } catch (error) {
    throw new ImageOpenError(`failed to open local file ${path}`, where, fileError(path, error));
  }
}

/** Whether there is something at a path that a layer may be read from. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return false;
    throw fileError(path, error);
  }
}

function fileError(path: string, error: unknown): LazyError {
  if (error instanceof LazyError) return error;
  const code = codeOf(error);
  if (code === "ENOENT" || code === "ENOTDIR") return new LazyError("NOT_FOUND", `${path}: does not exist`, { cause: error });
  const kind = code === "EACCES" || code === "EPERM" ? "DENIED" : "UNAVAILABLE";
  return new LazyError(kind, `${path}: cannot be read: ${messageOf(error)}`, { cause: error });
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
