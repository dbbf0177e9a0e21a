import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { TemporaryDirectory } from "./temporary-directory.ts";

const ROOT = join(import.meta.dirname, "../..");
/** What showing a device takes; these rooms use no npm packages. */
const PARTS = ["package.json", "src/errors.ts", "src/bytes", "src/native", "src/export", "src/daemon/later-code.ts"];

/** A copy of a part of the program, which tests may replace while it runs. */
export class CopiedProgram implements AsyncDisposable {
  readonly #directory: TemporaryDirectory;

  private constructor(directory: TemporaryDirectory) {
    this.#directory = directory;
  }

  static async create(): Promise<CopiedProgram> {
    const copied = new CopiedProgram(await TemporaryDirectory.create());
    for (const part of PARTS) await cp(join(ROOT, part), copied.join(part), { recursive: true });
    return copied;
  }

  join(...names: string[]): string {
    return this.#directory.join(...names);
  }

  /** What to import one of its modules by. */
  url(path: string): string {
    return pathToFileURL(this.join(path)).href;
  }

  /** Puts another version in its place, as an upgrade does. */
  async upgrade(version: string): Promise<void> {
    const text = await readFile(this.join("package.json"), "utf8");
    await writeFile(this.join("package.json"), text.replace(/("version": )"[^"]*"/, `$1"${version}"`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]();
  }
}
