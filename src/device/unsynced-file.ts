import { constants } from "node:fs";
import { access, readFile, realpath, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { DiskFile, FileSource } from "../bytes/file.ts";
import type { ByteSource } from "../bytes/source.ts";
import type { WritableFile } from "../bytes/writable-file.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { UnsyncedPlace } from "../formats/lsmt/unsynced-log.ts";
import { exists } from "./image-config-file.ts";

const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/**
 * Where a layer keeps what was written to it and is not flushed: a file beside its index file, which is there only while the layer is
 * written to. Undefined, with a notice, where there can be none. Whoever opens the layer closes the file with it.
 */
export async function openUnsynced(index: string, notice: (message: string) => void): Promise<UnsyncedPlace | undefined> {
  const path = await pathBeside(index);
  // What a killed process has left must not be passed over.
  if (await exists(path)) {
    const bootId = await readBootId();
    return { file: new PassingFile(path, await DiskFile.open(path)), bootId, notice };
  }
  try {
    await access(dirname(path), constants.W_OK | constants.X_OK);
    return { file: new PassingFile(path, undefined), bootId: await readBootId(), notice };
  } catch (error) {
    notice(`${index}: what is not flushed is lost when the process is killed, as nothing can be kept beside it: ${messageOf(error)}`);
    return undefined;
  }
}

/** The same of a layer that is only read, while it is opened. */
export async function readingUnsynced<T>(
  index: string,
  notice: (message: string) => void,
  open: (place: UnsyncedPlace<ByteSource> | undefined) => Promise<T>,
): Promise<T> {
  const path = await pathBeside(index);
  if (!(await exists(path))) return await open(undefined);
  const file = await FileSource.open(path);
  try {
    return await open({ file, bootId: await readBootId(), notice });
  } finally {
    await file.close();
  }
}

/** However the index file is reached, it is the same. */
async function pathBeside(index: string): Promise<string> {
  return `${await realpath(index)}.unsynced`;
}

async function readBootId(): Promise<string> {
  const text = (await readFile(BOOT_ID, "latin1")).trim();
  if (/^[0-9a-f-]{36}$/.test(text)) return text;
  throw new LazyError("UNSUPPORTED", `${BOOT_ID} is ${JSON.stringify(text)}, expected a uuid`);
}

/** A file that the first write makes, and that is removed when it is closed with nothing in it. */
class PassingFile implements WritableFile {
  readonly name: string;
  #file: DiskFile | undefined;

  constructor(path: string, file: DiskFile | undefined) {
    this.name = path;
    this.#file = file;
  }

  get size(): number {
    return this.#file?.size ?? 0;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return await (await this.#made()).read(offset, length);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await (await this.#made()).write(offset, bytes);
  }

  async truncate(size: number): Promise<void> {
    await (await this.#made()).truncate(size);
  }

  async flush(): Promise<void> {
    await this.#file?.flush();
  }

  async close(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    if (file.size === 0) await rm(this.name, { force: true });
    await file.close();
  }

  async #made(): Promise<DiskFile> {
    return (this.#file ??= await DiskFile.openOrCreate(this.name));
  }
}
