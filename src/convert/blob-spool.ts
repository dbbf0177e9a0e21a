import { mkdir, open, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import type { ByteSink } from "../bytes/sink.ts";
import { checkRange, type ByteSource } from "../bytes/source.ts";
import { LazyError, messageOf } from "../errors.ts";

/** Blobs up to this size stay in memory. */
const MEMORY_BYTES = 8 << 20;

export interface SpoolOptions {
  /** The file for a blob that outgrows memory, in a directory of its own, which comes and goes with it. */
  readonly path: string;
  /** The file stays when the spool is closed, however small the blob. */
  readonly keep: boolean;
}

/**
 * Holds a blob while it is made, since its first bytes depend on its last: in memory while small, then in a file.
 * Written front to back, with `patch` for the front; read once complete. Closing removes it.
 */
export class BlobSpool implements ByteSink, ByteSource {
  readonly name: string;
  readonly #options: SpoolOptions;
  #chunks: Uint8Array[] = [];
  #size = 0;
  #memory: Buffer | undefined;
  #file: FileHandle | undefined;

  constructor(options: SpoolOptions) {
    this.#options = options;
    this.name = options.path;
  }

  get size(): number {
    return this.#size;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const offset = this.#size;
    this.#size += bytes.length;
    if (!this.#file && (this.#options.keep || this.#size > MEMORY_BYTES)) await this.#openFile();
    if (this.#file) await this.#writeFile(bytes, offset);
    else this.#chunks.push(new Uint8Array(bytes));
  }

  /** Replaces bytes that were written. */
  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    checkRange(this, offset, bytes.length);
    if (this.#file) await this.#writeFile(bytes, offset);
    else this.#joined().set(bytes, offset);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    if (!this.#file) return new Uint8Array(this.#joined().subarray(offset, offset + length));
    const bytes = Buffer.allocUnsafe(length);
    const { bytesRead } = await this.#file.read(bytes, 0, length, offset);
    if (bytesRead !== length) throw new LazyError("UNAVAILABLE", `${this.name}: read ${bytesRead} of ${length} bytes at ${offset}`);
    return bytes;
  }

  async close(): Promise<void> {
    this.#chunks = [];
    this.#memory = undefined;
    const file = this.#file;
    this.#file = undefined;
    if (!file) return;
    await file.close();
    if (!this.#options.keep) await rm(dirname(this.#options.path), { recursive: true, force: true });
  }

  #joined(): Buffer {
    if (!this.#memory) {
      this.#memory = Buffer.concat(this.#chunks);
      this.#chunks = [];
    } else if (this.#chunks.length > 0) {
      this.#memory = Buffer.concat([this.#memory, ...this.#chunks]);
      this.#chunks = [];
    }
    return this.#memory;
  }

  async #openFile(): Promise<void> {
    await mkdir(dirname(this.#options.path), { recursive: true });
    this.#file = await open(this.#options.path, "w+", 0o644);
    const memory = this.#joined();
    await this.#writeFile(memory, 0);
    this.#memory = undefined;
  }

  async #writeFile(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#file!.write(bytes, done, bytes.length - done, offset + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw new LazyError("UNAVAILABLE", `${this.name}: cannot write ${bytes.length} bytes at ${offset}: ${messageOf(error)}`, { cause: error });
    }
  }
}
