import { open, rm, type FileHandle } from "node:fs/promises";
import type { ByteSink } from "../../bytes/sink.ts";
import { PAYLOAD_OFFSET, payloadHead, payloadTail } from "../../tar/payload.ts";
import { openFailure } from "./tool.ts";

export interface OutputFileOptions {
  readonly mode: number;
  /** Takes the place of a file that is there; otherwise that is an error. */
  readonly replace: boolean;
  /** What is written is the payload of a tar. */
  readonly inTar: boolean;
}

/** The file that a tool makes. It is gone if the tool fails. */
export class OutputFile implements ByteSink {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #start: number;
  #bytes = 0;

  private constructor(path: string, file: FileHandle, start: number) {
    this.path = path;
    this.#file = file;
    this.#start = start;
  }

  /** Throws what the tools say of a file that is there already, or cannot be made. */
  static async create(path: string, { mode, replace, inTar }: OutputFileOptions): Promise<OutputFile> {
    try {
      if (replace) await rm(path, { force: true });
      return new OutputFile(path, await open(path, "wx+", mode), inTar ? PAYLOAD_OFFSET : 0);
    } catch (error) {
      throw openFailure(path, error);
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

  /** Ends the tar, if it is one. */
  async close(): Promise<void> {
    if (this.#start > 0) {
      await this.#put(this.#start + this.#bytes, payloadTail(this.#bytes));
      await this.#put(0, payloadHead(this.#bytes));
    }
    await this.#file.close();
  }

  /** Closes the file and takes it away. */
  async abandon(): Promise<void> {
    await this.#file.close().catch(() => {}); // what failed before is what counts
    await rm(this.path, { force: true });
  }

  async #put(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      done += (await this.#file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
    }
  }
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
