import { LazyError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";

/** Whatever changes the bytes of a converted layer, besides the layer itself and those below it. */
export interface FingerprintedOptions {
  /** The layers' format, such as `overlaybd`. */
  readonly format: string;
  /** Raised whenever the same input and options begin to give other bytes. */
  readonly formatVersion: number;
  readonly filesystem: string;
  /** In bytes. */
  readonly virtualSize: number;
  /** `mkfs` when the lowest layer makes the filesystem; otherwise the digest of the base layer that has it. */
  readonly base: "mkfs" | Digest;
  /** How blocks are compressed, such as `lz4`. */
  readonly algorithm: string;
  /** Bytes of a block before compression. */
  readonly blockSize: number;
}

const WORD = /^[a-z0-9][a-z0-9.+-]{0,30}$/;

/**
 * A text that is equal exactly when the options are, and that a person can read: `overlaybd-2,ext4,vsize=68719476736,mkfs,lz4,4096`.
 * At most 255 printable ASCII characters.
 */
export function fingerprintOf(options: FingerprintedOptions): string {
  const { format, formatVersion, filesystem, virtualSize, base, algorithm, blockSize } = options;
  for (const word of [format, filesystem, algorithm]) {
    if (!WORD.test(word)) throw new LazyError("USAGE", `fingerprint: ${JSON.stringify(word.slice(0, 100))} is no name of a format`);
  }
  for (const number of [formatVersion, virtualSize, blockSize]) {
    if (!Number.isSafeInteger(number) || number < 0) throw new LazyError("USAGE", `fingerprint: ${number} is no count`);
  }
  return [`${format}-${formatVersion}`, filesystem, `vsize=${virtualSize}`, base, algorithm, blockSize].join(",");
}
