import { randomUUID } from "node:crypto";
import type { Stats } from "node:fs";
import { open, readlink, realpath, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { ByteSink } from "../../bytes/sink.ts";
import { LazyError } from "../../errors.ts";
import { PAYLOAD_OFFSET, payloadHead, payloadTail } from "../../tar/payload.ts";
import { openFailure } from "./tool.ts";

export interface OutputFileOptions {
  /** Of a new file. */
  readonly mode: number;
  /**
   * What becomes of a file that is there: it is in the way; it goes first, a symlink itself; or it stays until the new one is whole, which
   * takes its place and its mode, behind symlinks, too.
   */
  readonly existing: "refused" | "removed" | "replaced";
  /** What is written is the payload of a tar. */
  readonly inTar: boolean;
}

/** The file that a tool makes. If the tool fails it is gone, and one that it was to replace is as it was. */
export class OutputFile implements ByteSink {
  readonly #path: string;
  /** Where the file is until it is whole. */
  readonly #written: string;
  readonly #file: FileHandle;
  readonly #start: number;
  #bytes = 0;

  private constructor(path: string, written: string, file: FileHandle, inTar: boolean) {
    this.#path = path;
    this.#written = written;
    this.#file = file;
    this.#start = inTar ? PAYLOAD_OFFSET : 0;
  }

  /** Throws what the tools say of a file that is there already, or cannot be made; `USAGE` for what is no file and cannot be replaced. */
  static async create(path: string, { mode, existing, inTar }: OutputFileOptions): Promise<OutputFile> {
    try {
      if (existing === "replaced") return await OutputFile.#replacing(path, mode, inTar);
      if (existing === "removed") await rm(path, { force: true });
      return new OutputFile(path, path, await open(path, "wx+", mode), inTar);
    } catch (error) {
      throw openFailure(path, error);
    }
  }

  static async #replacing(path: string, mode: number, inTar: boolean): Promise<OutputFile> {
    const found = await statsOf(path);
    if (found?.isFile() === false)
      throw new LazyError("USAGE", `failed to create output file: ${path} is a directory, a pipe or a device; name a file, or a new one`);
    const real = await followed(path);
    const written = join(dirname(real), `.lazylayer-${randomUUID()}`);
    const output = new OutputFile(real, written, await open(written, "wx+", mode), inTar);
    if (found === undefined) return output;
    try {
      if (process.getuid?.() === 0) await output.#file.chown(found.uid, found.gid);
      await output.#file.chmod(found.mode & 0o7777);
      return output;
    } catch (error) {
      await output.abandon();
      throw error;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.patch(this.#bytes, bytes);
    this.#bytes += bytes.length;
  }

  /** Replaces bytes that were written. */
  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#put(this.#start + offset, bytes);
  }

  /** Ends the tar, if it is one, and gives the file its name. */
  async close(): Promise<void> {
    if (this.#start > 0) {
      await this.#put(this.#start + this.#bytes, payloadTail(this.#bytes));
      await this.#put(0, payloadHead(this.#bytes));
    }
    const isRenamed = this.#written !== this.#path;
    if (isRenamed) await this.#file.sync(); // or a crash could leave less than there was
    await this.#file.close();
    if (isRenamed) await rename(this.#written, this.#path);
  }

  /** Closes the file and takes it away. */
  async abandon(): Promise<void> {
    await this.#file.close().catch(() => {}); // what failed before is what counts
    await rm(this.#written, { force: true });
  }

  async #put(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      done += (await this.#file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
    }
  }
}

async function statsOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (isAbsence(error)) return undefined;
    throw error;
  }
}

/** Where a path leads to, also where nothing is there yet. */
async function followed(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (!isAbsence(error)) throw error;
  }
  const directory = await realpath(dirname(path));
  let link: string;
  try {
    link = await readlink(path);
  } catch (error) {
    if (isAbsence(error)) return path;
    throw error;
  }
  return await followed(resolve(directory, link));
}

function isAbsence(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

/** Makes a file of what `fill` writes. When that fails, no file stays behind. */
export async function makeFile<R>(path: string, options: OutputFileOptions, fill: (output: OutputFile) => Promise<R>): Promise<R> {
  const output = await OutputFile.create(path, options);
  try {
    const result = await fill(output);
    await output.close();
    return result;
  } catch (error) {
    await output.abandon();
    throw error;
  }
}
