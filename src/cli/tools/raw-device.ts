import { open, type FileHandle } from "node:fs/promises";
import type { BlockDevice } from "../../bytes/block-device.ts";
import { checkRange } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";
import { openFailure } from "./tool.ts";

/** Zeros are written in pieces of this size. */
const ZERO_BYTES = 1 << 20;

/** A file whose bytes are a device's. */
export class RawDevice implements BlockDevice {
  readonly name: string;
  readonly size: number;
  readonly #file: FileHandle;

  private constructor(name: string, size: number, file: FileHandle) {
    this.name = name;
    this.size = size;
    this.#file = file;
  }

  static async open(path: string): Promise<RawDevice> {
    try {
      const file = await open(path, "r+");
      return new RawDevice(path, (await file.stat()).size, file);
    } catch (error) {
      throw openFailure(path, error);
    }
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await this.#file.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0) throw corrupt(`${this.name}: ends at ${offset + done}, was ${this.size} bytes when opened`);
      done += bytesRead;
    }
    return bytes;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkRange(this, offset, bytes.length);
    for (let done = 0; done < bytes.length;) {
      done += (await this.#file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
    }
  }

  async discard(offset: number, length: number): Promise<void> {
    const zeros = Buffer.alloc(Math.min(ZERO_BYTES, length));
    for (let at = 0; at < length; at += zeros.length) await this.write(offset + at, zeros.subarray(0, length - at));
  }

  /** Makes all of it zeros, and a hole. */
  async clear(): Promise<void> {
    await this.#file.truncate(0);
    await this.#file.truncate(this.size);
  }

  async flush(): Promise<void> {
    await this.#file.sync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
