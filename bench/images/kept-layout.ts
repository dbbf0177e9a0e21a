import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * An OCI layout that is made once. Does nothing when `directory` is there and was made by the same recipe: `name` and the text of
 * `files`. Otherwise calls `make` with a directory to work in, whose `layout` becomes `directory`.
 */
export async function keepLayout(
  directory: string,
  recipe: { readonly name: string; readonly files: readonly string[] },
  make: (work: string) => Promise<void>,
): Promise<void> {
  const hash = createHash("sha256");
  for (const file of recipe.files) hash.update(await readFile(file));
  const text = `${recipe.name} ${hash.digest("hex")}\n`;
  const stamp = `${directory}.recipe`;
  if ((await readFile(stamp, "utf8").catch(() => "")) === text) return;
  await rm(stamp, { force: true });
  await rm(directory, { recursive: true, force: true });
  const work = `${directory}.partial-${process.pid}`;
  await mkdir(work, { recursive: true });
  try {
    await make(work);
    await rename(join(work, "layout"), directory);
    await writeFile(stamp, text);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
