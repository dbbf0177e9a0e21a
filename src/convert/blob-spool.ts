import { mkdir, open, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import type { ByteSink } from "../bytes/sink.ts";
import { checkRange, type ByteSource } from "../bytes/source.ts";
import { LazyError, messageOf } from "../errors.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";

/** Large enough to go back to the system when it is freed. */
const PAGE_BYTES = 256 << 10;
/** Read at a time for the digest. */
const DIGEST_BYTES = 1 << 20;

const NO_SPACE = "free space there, or name another directory for temporary data (TMPDIR; convertor: -d)";

/** Bytes of memory that several spools share: a blob stays in memory while there is room in it. */
export class SpoolMemory {
  #free: number;
  readonly #residentLimit: number;

  /** @param residentLimit there is no room either while the process takes this much memory for whatever it does */
  constructor(bytes: number, residentLimit = Infinity) {
    this.#free = bytes;
    this.#residentLimit = residentLimit;
  }

  /** Whether there is room; if so it is taken. */
  take(bytes: number): boolean {
    if (bytes > this.#free || process.memoryUsage.rss() + bytes > this.#residentLimit) return false;
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
  /** The blob while it is in memory; each page is taken from what is shared. */
  #pages: Buffer[] = [];
  #size = 0;
  #file: FileHandle | undefined;
  #opening: Promise<void> | undefined;
  #closed = false;

  constructor(options: SpoolOptions) {
    this.#options = options;
    this.name = options.path;
  }

  get size(): number {
    return this.#size;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#checkOpen();
    const offset = this.#size;
    if (!this.#file && !this.#reserve(offset + bytes.length)) {
      await (this.#opening = this.#openFile());
      this.#checkOpen();
    }
    this.#size += bytes.length;
    await this.#put(offset, bytes);
  }

  /** Replaces bytes that were written. */
  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    this.#checkOpen();
    checkRange(this, offset, bytes.length);
    await this.#put(offset, bytes);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = Buffer.allocUnsafe(length);
    await this.readInto(offset, bytes);
    return bytes;
  }

  async readInto(offset: number, target: Uint8Array): Promise<void> {
    const { length } = target;
    checkRange(this, offset, length);
    this.#checkOpen();
    if (!this.#file) {
      for (let done = 0; done < length;) done += pageAt(this.#pages, offset + done).copy(target, done);
      return;
    }
    const { bytesRead } = await this.#file.read(target, 0, length, offset);
    if (bytesRead !== length) throw new LazyError("UNAVAILABLE", `${this.name}: read ${bytesRead} of ${length} bytes at ${offset}`);
  }

  /** The digest of what was written. */
  async digest(): Promise<Digest> {
    const hash = new DigestHash();
    if (!this.#file) {
      for (let at = 0; at < this.#size; at += PAGE_BYTES) hash.update(pageAt(this.#pages, at).subarray(0, this.#size - at));
      return hash.digest();
    }
    const buffer = Buffer.allocUnsafeSlow(DIGEST_BYTES);
    for (let at = 0; at < this.#size; at += DIGEST_BYTES) {
      const bytes = buffer.subarray(0, this.#size - at);
      await this.readInto(at, bytes);
      hash.update(bytes);
    }
    return hash.digest();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#opening?.catch(() => {}); // whoever wrote hears of it
    const file = this.#file;
    this.#file = undefined;
    this.#dropPages();
    if (!file) return;
    await file.close();
    if (!this.#options.keep) await rm(dirname(this.#options.path), { recursive: true, force: true });
  }

  #checkOpen(): void {
    if (this.#closed) throw new LazyError("UNAVAILABLE", `${this.name}: is closed`);
  }

  /** Takes pages for a blob of this size; false when memory is not where it goes. */
  #reserve(size: number): boolean {
    const { keep, memory } = this.#options;
    while (this.#pages.length * PAGE_BYTES < size) {
      if (keep || !memory.take(PAGE_BYTES)) return false;
      this.#pages.push(Buffer.allocUnsafeSlow(PAGE_BYTES));
    }
    return true;
  }

  #dropPages(): void {
    this.#options.memory.give(this.#pages.length * PAGE_BYTES);
    this.#pages = [];
  }

  /** Moves what is in memory to a file. */
  async #openFile(): Promise<void> {
    await mkdir(dirname(this.#options.path), { recursive: true });
    this.#file = await open(this.#options.path, "w+", 0o644);
    for (let at = 0; at < this.#size; at += PAGE_BYTES) {
      await this.#writeFile(pageAt(this.#pages, at).subarray(0, this.#size - at), at);
    }
    this.#dropPages();
  }

  async #put(offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#file) return await this.#writeFile(bytes, offset);
    for (let done = 0; done < bytes.length;) {
      const room = pageAt(this.#pages, offset + done);
      const taken = bytes.subarray(done, done + room.length);
      room.set(taken);
      done += taken.length;
    }
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

/** What the pages hold from an offset to the end of its page. */
function pageAt(pages: readonly Buffer[], offset: number): Buffer {
  return pages[Math.floor(offset / PAGE_BYTES)].subarray(offset % PAGE_BYTES);
}
