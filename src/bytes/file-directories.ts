import { mkdir, open, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/**
 * Makes a directory and what is missing above it; gives the outermost that was made. One step at a time: where a file system says
 * that nothing is there and lets nothing be made, as /proc does, Node's own recursive way never ends.
 */
export async function makeDirectories(path: string): Promise<string | undefined> {
  const missing: string[] = [];
  for (let at = resolve(path); (await kindOf(at)) === "missing"; at = dirname(at)) missing.unshift(at);
  let made: string | undefined;
  for (const directory of missing) {
    try {
      await mkdir(directory);
      made ??= directory;
    } catch (error) {
      // Somebody else may have been faster.
      if ((await kindOf(directory)) !== "directory") throw error;
    }
  }
  return made;
}

/** Makes what was written to a file, or names that were made, changed or removed in a directory, survive a crash. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function kindOf(path: string): Promise<"directory" | "other" | "missing"> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return "missing";
  return found.isDirectory() ? "directory" : "other";
}
