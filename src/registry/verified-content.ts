import { readThrough, type ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";

const READ_BYTES = 1 << 20;
/** One that is being sent, one that is being read, and one more that is sent still when it was short. */
const BUFFERS = 3;

export type ContentDigest =
  /** The content is known to have it, or has to turn out to. */
  | { readonly digest: Digest; readonly isHashed: boolean }
  /** Somebody else finds out. */
  | { readonly digest: Promise<Digest>; readonly isHashed: true }
  /** It is what the content turns out to have. */
  | { readonly digest: undefined; readonly isHashed: false };

/**
 * Hands out the content front to back, and hashes it on the way unless that has been done. The last bytes of what contradicts its
 * digest are not handed out.
 */
export class VerifiedContent {
  readonly #content: ByteSource;
  readonly #expected: ContentDigest["digest"];
  readonly #what: string;
  readonly #hash: DigestHash | undefined;
  /** How much of the content the hash has seen. */
  #hashed = 0;
  #found: Digest | undefined;
  /** Pieces are read into these by turns: whoever sends a piece asks for the next one only when it has left. */
  readonly #buffers: Buffer[] = [];
  #failure: unknown;

  /** `what` names the blob in messages. */
  constructor(content: ByteSource, what: string, { digest, isHashed }: ContentDigest) {
    this.#content = content;
    this.#expected = digest;
    this.#what = what;
    this.#hash = isHashed ? undefined : new DigestHash();
  }

  /** Takes what has been sent before into the digest. */
  async skip(length: number, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#hash || this.#hashed >= length) return;
    for await (const _ of this.read(this.#hashed, length - this.#hashed)) signal?.throwIfAborted();
  }

  /** The digest of the whole content; reads what has not been handed out yet if it is not known. */
  async digest(signal: AbortSignal | undefined): Promise<Digest> {
    if (this.#expected !== undefined) return await this.#expected;
    await this.skip(this.#content.size, signal);
    return this.#finish();
  }

  async *read(start: number, length: number): AsyncGenerator<Uint8Array> {
    try {
      for (let at = start; at < start + length; at += READ_BYTES) {
        const bytes = await this.#piece(at, Math.min(READ_BYTES, start + length - at));
        this.#take(bytes, at);
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

  #take(bytes: Uint8Array, at: number): void {
    if (at !== this.#hashed) return;
    this.#hash?.update(bytes);
    this.#hashed += bytes.length;
    if (this.#hash && this.#hashed === this.#content.size) this.#finish();
  }

  #finish(): Digest {
    const found = (this.#found ??= this.#hash!.digest());
    if (typeof this.#expected === "string" && found !== this.#expected)
      throw corrupt(`${this.#what}: content to upload has digest ${found}, expected ${this.#expected}`);
    return found;
  }
}
