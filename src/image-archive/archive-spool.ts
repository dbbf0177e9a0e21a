import { randomUUID } from "node:crypto";
import { open, statfs, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { checkRange, type ByteSource } from "../bytes/source.ts";
import { decompress } from "../compression/decompress.ts";
import { corrupt, LazyError, messageOf } from "../errors.ts";

export interface SpoolOptions {
  /** Where the file is made. */
  readonly temporaryDirectory: string;
  readonly signal?: AbortSignal | undefined;
}

/** Of what is free on the disk, so that a bomb fills no disk that others need too. */
const USABLE_SHARE = 0.95;

/**
 * Takes a stream that can be read only once to a file that can be read anywhere, decompressed where it is gzip or zstd.
 * The file has lost its name by the time it is written: nothing stays behind, whatever ends the program.
 * Throws `UNAVAILABLE` where the disk is too small, and what the stream throws.
 */
export async function spoolArchive(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
  { temporaryDirectory, signal }: SpoolOptions,
  usableBytes?: number,
): Promise<ByteSource> {
  const handle = await openNameless(temporaryDirectory);
  try {
    const limit = usableBytes ?? (await freeBytes(temporaryDirectory)) * USABLE_SHARE;
    const { stream } = await decompress(chunks, name);
    let size = 0;
    for await (const chunk of stream) {
      signal?.throwIfAborted();
      size += chunk.length;
      if (size > limit) throw tooLarge(name, temporaryDirectory, `more than the ${Math.floor(limit)} bytes that it may take there`);
      await writeChunk(handle, chunk, name, temporaryDirectory);
    }
    return new SpooledArchive(handle, name, size);
  } catch (error) {
    await handle.close();
    signal?.throwIfAborted();
    throw error;
  }
}

async function openNameless(directory: string): Promise<FileHandle> {
  const path = join(directory, `lazylayer-${randomUUID()}`);
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "wx+", 0o600);
    await unlink(path);
    return handle;
  } catch (error) {
    await handle?.close();
    throw new LazyError("UNAVAILABLE", `${path}: ${messageOf(error)}; name another directory for temporary data`, { cause: error });
  }
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

async function writeChunk(handle: FileHandle, chunk: Uint8Array, name: string, directory: string): Promise<void> {
  try {
    await handle.writeFile(chunk);
  } catch (error) {
    throw tooLarge(name, directory, messageOf(error), error);
  }
}

function tooLarge(name: string, directory: string, why: string, cause?: unknown): LazyError {
  const message = `${name}: cannot be held in ${directory}: ${why}; name another directory for temporary data`;
  return new LazyError("UNAVAILABLE", message, { cause });
}

/** What is left of an archive that was a stream: a file without a name. */
class SpooledArchive implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandle;

  constructor(handle: FileHandle, name: string, size: number) {
    this.#handle = handle;
    this.name = name;
    this.size = size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await this.#handle.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0) throw corrupt(`${this.name}: its temporary file ends at ${offset + done}, expected ${this.size} bytes`);
      done += bytesRead;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
