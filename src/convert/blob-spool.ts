import { mkdir, open, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import type { ByteSink } from "../bytes/sink.ts";
import { checkRange, type ByteSource } from "../bytes/source.ts";
import { LazyError, messageOf } from "../errors.ts";

/** Blobs up to this size stay in memory while there is room. */
const MEMORY_BYTES = 8 << 20;

const NO_SPACE = "free space there, or name another directory for temporary data (TMPDIR; convertor: -d)";

/** Bytes of memory that several spools share. */
export class SpoolMemory {
  #free: number;

  constructor(bytes: number) {
    this.#free = bytes;
  }

  /** Whether there is room; if so it is taken. */
  take(bytes: number): boolean {
    if (bytes > this.#free) return false;
    this.#free -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#free += bytes;
  }
}

export interface SpoolOptions {
  /** The file for a blob that outgrows memory, in a directory of its own, which comes and goes with it. */
  readonly path: string;
  /** The file stays when the spool is closed, however small the blob. */
  readonly keep: boolean;
  readonly memory: SpoolMemory;
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
  /** What it holds of the shared memory. */
  #taken = 0;
  #memory: Buffer | undefined;
  #file: FileHandle | undefined;
  #closed = false;

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
    if (!this.#file && !this.#takeMemory(bytes.length)) await this.#openFile();
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
    if (this.#closed) throw new LazyError("UNAVAILABLE", `${this.name}: is closed`);
    if (!this.#file) return new Uint8Array(this.#joined().subarray(offset, offset + length));
    const bytes = Buffer.allocUnsafe(length);
    const { bytesRead } = await this.#file.read(bytes, 0, length, offset);
    if (bytesRead !== length) throw new LazyError("UNAVAILABLE", `${this.name}: read ${bytesRead} of ${length} bytes at ${offset}`);
    return bytes;
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#closed = true;
    this.#chunks = [];
    this.#memory = undefined;
    this.#file = undefined;
    this.#giveMemory();
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

  /** Moves what is in memory to a file. */
  async #openFile(): Promise<void> {
    await mkdir(dirname(this.#options.path), { recursive: true });
    this.#file = await open(this.#options.path, "w+", 0o644);
    await this.#writeFile(this.#joined(), 0);
    this.#memory = undefined;
    this.#giveMemory();
  }

  #takeMemory(bytes: number): boolean {
    const { keep, memory } = this.#options;
    if (keep || this.#taken + bytes > MEMORY_BYTES || !memory.take(bytes)) return false;
    this.#taken += bytes;
    return true;
  }

  #giveMemory(): void {
    this.#options.memory.give(this.#taken);
    this.#taken = 0;
  }

  async #writeFile(bytes: Uint8Array, offset: number): Promise<void> {
    try {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#file!.write(bytes, done, bytes.length - done, offset + done);
        done += bytesWritten;
      }
    } catch (error) {
      const message = `${this.name}: cannot write ${bytes.length} bytes at ${offset}: ${messageOf(error)}; ${NO_SPACE}`;
      throw new LazyError("UNAVAILABLE", message, { cause: error });
    }
  }
}
