import { writeFile } from "node:fs/promises";
import { LazyError, messageOf } from "../errors.ts";
import { RegistryError } from "../registry/registry-error.ts";

/** The reason of a layer that is not local, of an image without a repository. */
export const EMPTY_REPOSITORY = "empty repoBlobUrl";

/** An image that could not be opened; `reason` is what its result file says. */
export class ImageOpenError extends LazyError {
  /** In the fixed words that whoever waits for a result file may look for. */
  readonly reason: string;

  /** Of what went wrong; the code is that of `cause`. `where` names the key at fault. */
  constructor(reason: string, where: string, cause: unknown) {
    super(cause instanceof LazyError ? cause.code : "UNAVAILABLE", `${where}: ${messageOf(cause)}`, { cause });
    this.name = "ImageOpenError";
    this.reason = reason;
  }
}

/** What happened to a remote blob, in the words of result files. */
export function remoteReason(error: unknown): string {
  if (!(error instanceof LazyError)) return messageOf(error);
  if (error.code === "NOT_FOUND") return "No such file or directory";
  if (error.code === "DENIED") return "Authentication failed";
  if (!(error instanceof RegistryError)) return "Unexpected response";
  if (error.status === 429) return "Too many requests";
  if (error.status !== undefined) return "Unexpected response";
  return /stalled|timed out|time limit|gave up after [\d.]+ s$/.test(error.message) ? "Get meta timedout" : "Connection failed";
}

/**
 * Writes how opening went, in place of what the file says; without a path nothing is written. A file that cannot be written is no
 * reason to fail: `notice` is told.
 */
export async function writeResult(path: string, failure: unknown, notice: (message: string) => void): Promise<void> {
  if (path === "") return;
  const reason = failure instanceof ImageOpenError ? failure.reason : "";
  try {
    await writeFile(path, failure === undefined ? "success" : `failed:${reason}`);
  } catch (error) {
    notice(`resultFile: ${messageOf(error)}; the result was not written`);
  }
}
