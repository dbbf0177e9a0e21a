import { createHash, type Hash } from "node:crypto";
import { corrupt, unsupported } from "../errors.ts";

declare const checked: unique symbol;

/** `sha256:` and 64 lower-case hex digits, already checked: safe to put into a path or a URL. */
export type Digest = `sha256:${string}` & { readonly [checked]: true };

const SHA256 = /^sha256:[0-9a-f]{64}$/;
/** `algorithm:encoded` of the image specification; what matches and is not SHA-256 is well-formed but not handled. */
const ANY_ALGORITHM = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]{32,256}$/;

export function isDigest(text: unknown): text is Digest {
  return typeof text === "string" && SHA256.test(text);
}

/** Throws `CORRUPT` for what is no digest and `UNSUPPORTED` for algorithms other than SHA-256; `where` starts the message. */
export function parseDigest(text: unknown, where: string): Digest {
  if (isDigest(text)) return text;
  const shown = JSON.stringify(text)?.slice(0, 120);
  if (typeof text === "string" && ANY_ALGORITHM.test(text) && !text.startsWith("sha256:")) {
    throw unsupported(`${where}: digest ${shown} uses an algorithm that is not supported, only sha256 is`);
  }
  throw corrupt(`${where}: digest is ${shown}, expected sha256: and 64 lower-case hex digits`);
}

export function digestOf(bytes: Uint8Array): Digest {
  const hash = new DigestHash();
  hash.update(bytes);
  return hash.digest();
}

/** The 64 hex digits of a digest. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

/** Hashes what arrives in pieces. */
export class DigestHash {
  readonly #hash: Hash;

  constructor(hash: Hash = createHash("sha256")) {
    this.#hash = hash;
  }

  /** Another hash of what was hashed so far. */
  copy(): DigestHash {
    return new DigestHash(this.#hash.copy());
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** Ends the hash; call it once. */
  digest(): Digest {
    const text = `sha256:${this.#hash.digest("hex")}`;
    return text as Digest; // the one place where a digest is made rather than parsed
  }
}
