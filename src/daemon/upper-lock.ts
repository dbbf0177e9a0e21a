import { LazyError, messageOf } from "../errors.ts";
import { lockPath, type ProcessLock } from "./process-lock.ts";

/**
 * Keeps other processes of this program from writing to a layer, by its data file: two writers would spoil it. `name` is what the user
 * knows the file by, where nobody else says so. Throws `UNAVAILABLE` where another one writes to it, `NOT_FOUND` where there is no file.
 */
export async function lockUpper(path: string, name?: string): Promise<ProcessLock> {
  const where = name === undefined ? "" : `${name}: `;
  let lock: ProcessLock | undefined;
  try {
    lock = await lockPath("upper", path);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause && cause.code === "ENOENT" ? "NOT_FOUND" : "UNAVAILABLE";
    throw new LazyError(code, `${where}${messageOf(cause)}`, { cause });
  }
  if (lock !== undefined) return lock;
  throw new LazyError(
    "UNAVAILABLE",
    `${where}another process writes to ${path}, and two would spoil it; it is a device of lazylayer daemon, lazylayer serve or one of the overlaybd tools: end that first`,
  );
}
