import type { ByteSource } from "../bytes/source.ts";
import { messageOf } from "../errors.ts";
import { WaitingReads } from "./waiting-reads.ts";

/**
 * A remote blob that may meanwhile have become a local file with the same bytes. Reads that are underway when it does end where they
 * began. A file that fails, or whose bytes turn out to be wrong, is left for the remote blob again. Closing it closes both.
 */
export class SwitchedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #remote: ByteSource;
  readonly #waiting = new WaitingReads();
  readonly #notice: (message: string) => void;
  readonly #files: ByteSource[] = [];
  #local: ByteSource | undefined;

  constructor(remote: ByteSource, notice: (message: string) => void) {
    this.name = remote.name;
    this.size = remote.size;
    this.#remote = remote;
    this.#notice = notice;
  }

  /** From now on the bytes are read from `file`, which is closed with this source. */
  switchTo(file: ByteSource): void {
    this.#files.push(file);
    this.#local = file;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const local = this.#local;
    if (local !== undefined) {
      try {
        return await local.read(offset, length);
      } catch (error) {
        this.#leave(local, messageOf(error));
      }
    }
    return await this.#waiting.run(async () => await this.#remote.read(offset, length));
  }

  /** Resolves when nobody waits for the remote blob. */
  async idle(): Promise<void> {
    await this.#waiting.idle();
  }

  distrust(): void {
    if (this.#local === undefined) this.#remote.distrust?.();
    else this.#leave(this.#local, `${this.#local.name}: gave wrong bytes`);
  }

  async close(): Promise<void> {
    this.#local = undefined;
    for (const file of this.#files.splice(0)) await file.close();
    await this.#remote.close();
  }

  /** Reads of the file may be underway, so it stays open. */
  #leave(local: ByteSource, why: string): void {
    if (this.#local !== local) return;
    this.#local = undefined;
    this.#notice(`${why}; the layer is read from the registry again`);
  }
}
