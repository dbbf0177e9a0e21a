import { LazyError } from "../errors.ts";

/** Whether a change failed for want of room, which whoever made it is told in these words. */
export function isDiskFull(error: unknown): boolean {
  const reason = error instanceof LazyError && error.cause instanceof Error ? error.cause : error;
  return reason instanceof Error && "code" in reason && (reason.code === "ENOSPC" || reason.code === "EDQUOT");
}
