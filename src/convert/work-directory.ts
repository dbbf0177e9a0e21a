import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeDirectories } from "../bytes/file-directories.ts";
import { LazyError, messageOf } from "../errors.ts";

/** Where a conversion keeps what it needs on disk. It comes with the first file and goes with the conversion, unless kept. */
export class WorkDirectory {
  readonly path: string;
  /** The outermost directory that had to be made for it. */
  #made: string | undefined;

  constructor(path: string) {
    this.path = path;
  }

  /** Makes the directory. Throws `UNAVAILABLE` if that cannot be. */
  async create(): Promise<void> {
    this.#made ??= await attempt(this.path, async () => await makeDirectories(this.path));
  }

  /** Writes a file for the user to find. */
  async dump(name: string, bytes: Uint8Array): Promise<void> {
    await this.create();
    await attempt(join(this.path, name), async () => await writeFile(join(this.path, name), bytes));
  }

  /** A directory inside of it. */
  inside(name: string): WorkDirectory {
    return new WorkDirectory(join(this.path, name));
  }

  /** Removes everything inside, and itself where it was made here. */
  async remove(): Promise<void> {
    if (this.#made !== undefined) await rm(this.#made, { recursive: true, force: true });
  }
}

async function attempt<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new LazyError("UNAVAILABLE", `${path}: ${messageOf(error)}; name another directory for temporary data`, { cause: error });
  }
}
