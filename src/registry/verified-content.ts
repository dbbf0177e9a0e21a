import { readThrough, type ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";

const READ_BYTES = 1 << 20;
/** One that is being sent, one that is being read, and one more that is sent still when it was short. */
const BUFFERS = 3;

/** Hands out the content once, front to back. Unless it is hashed already, its last bytes are held back until its digest has been checked. */
export class VerifiedContent {
  readonly #content: ByteSource;
  readonly #descriptor: Descriptor;
  readonly #what: string;
  readonly #hash: DigestHash | undefined;
  /** Pieces are read into these by turns: whoever sends a piece asks for the next one only when it has left. */
  readonly #buffers: Buffer[] = [];
  #failure: unknown;

  /** `what` names the blob in messages. */
  constructor(content: ByteSource, descriptor: Descriptor, what: string, { isHashed }: { readonly isHashed: boolean }) {
    this.#content = content;
    this.#descriptor = descriptor;
    this.#what = what;
    this.#hash = isHashed ? undefined : new DigestHash();
  }

  /** Takes what has been sent before into the digest. */
  async skip(length: number, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#hash) return;
    for await (const _ of this.read(0, length)) signal?.throwIfAborted();
  }

  async *read(start: number, length: number): AsyncGenerator<Uint8Array> {
    try {
      for (let at = start; at < start + length; at += READ_BYTES) {
        const bytes = await this.#piece(at, Math.min(READ_BYTES, start + length - at));
        this.#hash?.update(bytes);
        if (this.#hash && at + bytes.length === this.#descriptor.size) this.#check(this.#hash.digest());
        yield bytes;
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  async #piece(offset: number, length: number): Promise<Uint8Array> {
    if (!this.#content.readInto) return await this.#content.read(offset, length);
    const buffer =
      this.#buffers.length < BUFFERS ? Buffer.allocUnsafeSlow(Math.min(READ_BYTES, this.#content.size)) : this.#buffers.shift()!;
    this.#buffers.push(buffer);
    return await readThrough(this.#content, offset, buffer.subarray(0, length));
  }

  /** A request that fails because its body could not be read fails with the body's error, not with the connection's. */
  async translating<T>(request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw this.#failure ?? error;
    }
  }

  #check(found: Digest): void {
    const { digest } = this.#descriptor;
    if (found !== digest) throw corrupt(`${this.#what}: content to upload has digest ${found}, expected ${digest}`);
  }
}
