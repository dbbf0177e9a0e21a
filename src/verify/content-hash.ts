import { createHash } from "node:crypto";

const BLOCK_BYTES = 4096;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/**
 * A digest of a file's content that does not see how holes are stored: the SHA-256 over each 4 KiB block that is not all
 * zeros, with its number in front. Bytes come with ascending offsets; what is skipped is zeros.
 */
export class ContentHash {
  readonly #hash = createHash("sha256");
  readonly #number = Buffer.alloc(8);
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #current = -1;

  write(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const block = Math.floor((offset + at) / BLOCK_BYTES);
      const within = (offset + at) % BLOCK_BYTES;
      const taken = Math.min(BLOCK_BYTES - within, bytes.length - at);
      if (block !== this.#current) this.#finishBlock(block);
      this.#block.set(bytes.subarray(at, at + taken), within);
      at += taken;
    }
  }

  digest(): string {
    this.#finishBlock(-1);
    return this.#hash.digest("hex");
  }

  #finishBlock(next: number): void {
    if (this.#current >= 0 && Buffer.compare(this.#block, ZEROS) !== 0) {
      this.#number.writeBigUInt64LE(BigInt(this.#current));
      this.#hash.update(this.#number).update(this.#block);
    }
    this.#block.fill(0);
    this.#current = next;
  }
}
