import { copyFileSync, rmSync, statSync, truncateSync } from "node:fs";

/** Where a bounded log was put aside. */
export function asideOf(path: string): string {
  return `${path}.1`;
}

/**
 * Puts what a process has written to a file through standard error aside when it is more than `limitBytes`, and empties the file. It has
 * to stay the same one: whatever the process says when it crashes goes there. Nobody else may write to it, nor this process meanwhile.
 */
export function boundLog(path: string, limitBytes: number): void {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || found.size <= limitBytes) return;
  try {
    copyFileSync(path, asideOf(path));
  } catch {
    // A full disk, most likely: better nothing of the old lines than nothing of the new.
    rmSync(asideOf(path), { force: true });
  }
  truncateSync(path);
}
