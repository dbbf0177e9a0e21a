import { LazyError, messageOf } from "../errors.ts";
import { lockPath, type ProcessLock } from "./process-lock.ts";

/**
 * Keeps other processes, `lazylayer serve --upper` among them, from writing to a layer: two writers would spoil it. Throws `UNAVAILABLE`
 * where another one does.
 */
export async function lockUpper(path: string): Promise<ProcessLock> {
  let lock: ProcessLock | undefined;
  try {
    lock = await lockPath("upper", path);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause && cause.code === "ENOENT" ? "NOT_FOUND" : "UNAVAILABLE";
    throw new LazyError(code, messageOf(cause), { cause });
  }
  if (lock === undefined) throw new LazyError("UNAVAILABLE", `another process writes to ${path}; two would spoil it`);
  return lock;
}
