import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import { syncPath } from "./file-directories.ts";
import { checkRange, type ByteSource } from "./source.ts";
import type { WritableFile } from "./writable-file.ts";

/** A source over a regular file. */
export class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle, name: string, size: number) {
    this.#handle = handle;
    this.name = name;
    this.size = size;
  }

  static async open(path: string): Promise<FileSource> {
    const handle = await open(path, "r");
    const { size } = await handle.stat();
    return new FileSource(handle, path, size);
  }

  /** For threads that read the file on their own; it is valid until the source is closed. */
  get descriptor(): number {
    return this.#handle.fd;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return await readExactly(this.#handle, this, offset, length);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** A regular file that is read and written. */
export class DiskFile implements WritableFile {
  readonly name: string;
  readonly #handle: FileHandle;
  #size: number;
  #lost = false;

  private constructor(handle: FileHandle, name: string, size: number) {
    this.#handle = handle;
    this.name = name;
    this.#size = size;
  }

  /** Makes a new, empty file, whose name survives a crash. Throws `USAGE` when there is one already. */
  static async create(path: string): Promise<DiskFile> {
    const handle = await opened(path, "wx+");
    await syncPath(dirname(path));
    return new DiskFile(handle, path, 0);
  }

  static async open(path: string): Promise<DiskFile> {
    return await DiskFile.#open(path, constants.O_RDWR);
  }

  /** A new file's name need not survive a crash. */
  static async openOrCreate(path: string): Promise<DiskFile> {
    return await DiskFile.#open(path, constants.O_RDWR | constants.O_CREAT);
  }

  static async #open(path: string, flags: number): Promise<DiskFile> {
    const handle = await opened(path, flags);
    const found = await handle.stat();
    if (!found.isFile()) {
      await handle.close();
      throw new LazyError("USAGE", `${path}: not a regular file`);
    }
    return new DiskFile(handle, path, found.size);
  }

  get size(): number {
    return this.#size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return await readExactly(this.#handle, this, offset, length);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const left = bytes.length - done;
      const { bytesWritten } = await this.#attempt(`write at ${offset + done}`, () => this.#handle.write(bytes, done, left, offset + done));
      done += bytesWritten;
      // Other writes may have gone further while this one was underway.
      this.#size = Math.max(this.#size, offset + done);
    }
  }

  async truncate(size: number): Promise<void> {
    await this.#attempt(`set the size to ${size}`, () => this.#handle.truncate(size));
    this.#size = size;
  }

  /** After a failure every later flush fails too: the kernel forgets what it could not write, and would say that all is well. */
  async flush(): Promise<void> {
    if (this.#lost) {
      throw new LazyError("UNAVAILABLE", `${this.name}: an earlier flush failed, and what it was for may be lost: open the file again`);
    }
    try {
      await this.#attempt("flush", () => this.#handle.datasync());
    } catch (error) {
      this.#lost = true;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #attempt<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (cause) {
      throw new LazyError("UNAVAILABLE", `${this.name}: cannot ${what}: ${messageOf(cause)}`, { cause });
    }
  }
}

async function opened(path: string, flags: string | number): Promise<FileHandle> {
  try {
    return await open(path, flags, 0o644);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === "EEXIST") throw new LazyError("USAGE", `${path}: exists already, expected a new file`, { cause });
    if (code === "ENOENT") throw new LazyError("NOT_FOUND", `${path}: ${messageOf(cause)}`, { cause });
    if (code === "EACCES" || code === "EPERM" || code === "EROFS") throw new LazyError("DENIED", `${path}: ${messageOf(cause)}`, { cause });
    throw new LazyError("UNAVAILABLE", `${path}: ${messageOf(cause)}`, { cause });
  }
}

async function readExactly(handle: FileHandle, file: ByteSource, offset: number, length: number): Promise<Uint8Array> {
  checkRange(file, offset, length);
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw corrupt(`${file.name}: ends at ${offset + done}, was ${file.size} bytes`);
    done += bytesRead;
  }
  return bytes;
}
