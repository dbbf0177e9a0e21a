import type { ByteSource } from "../bytes/source.ts";
import { CachedSource } from "../cache/cached-source.ts";
import { decompress } from "../compression/decompress.ts";
import { corrupt, unsupported } from "../errors.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import type { TarEntry } from "../tar/tar-entry.ts";
import { TarReader } from "../tar/tar-reader.ts";
import { retryingCorrupt } from "./retry-corrupt.ts";

/** A layer blob and its members are held in memory; each up to so much. */
const MAX_BYTES = 512 * 2 ** 20;
const READ_BYTES = 8 * 2 ** 20;

type PartName = keyof Omit<TurboParts, "diffId">;

/** The members that are read, and what they are. */
export const TURBO_MEMBERS: ReadonlyMap<string, PartName> = new Map([
  ["ext4.fs.meta", "metadata"],
  ["erofs.fs.meta", "metadata"],
  ["gzip.meta", "gzipIndex"],
  ["zstd.meta", "zstdIndex"],
  ["spans.sha256", "spanDigests"],
]);

/** The parts of a turboOCI layer blob. See docs/formats/turbo-oci.md. */
export interface TurboParts {
  /** The warp layer. */
  readonly metadata: TurboPart & { readonly bytes: Uint8Array<SharedArrayBuffer> };
  readonly gzipIndex?: TurboPart;
  readonly zstdIndex?: TurboPart;
  readonly spanDigests?: TurboPart;
  /** Digest of the blob without its compression. */
  readonly diffId: Digest;
}

export interface TurboPart {
  /** For messages. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/**
 * Fetches a turboOCI layer blob, all of it, and unpacks it. Nothing is looked at before the blob's digest was compared; a blob that
 * is wrong is fetched once more. The source stays open.
 * Throws `CORRUPT` where digest or content are not as they should be, `UNSUPPORTED` for blobs that are too large for memory.
 */
export async function readTurboBlob(source: ByteSource, digest: Digest): Promise<TurboParts> {
  if (source.size > MAX_BYTES) throw tooLarge(source.name, `${source.size} bytes`);
  const pieces = await retryingCorrupt(
    async () => await fetchVerified(source, digest),
    () => {
      if (source instanceof CachedSource) source.discard(0, source.size);
      return true;
    },
  );
  return await unpack(pieces, source.name);
}

async function fetchVerified(source: ByteSource, digest: Digest): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  const hash = new DigestHash();
  for (let at = 0; at < source.size; at += READ_BYTES) {
    const piece = await source.read(at, Math.min(READ_BYTES, source.size - at));
    hash.update(piece);
    pieces.push(piece);
  }
  const found = hash.digest();
  if (found !== digest) throw corrupt(`${source.name}: content has digest ${found}, expected ${digest}`);
  return pieces;
}

async function unpack(pieces: readonly Uint8Array[], name: string): Promise<TurboParts> {
  const collector = new PartCollector(name);
  const reader = new TarReader(collector, name);
  const hash = new DigestHash();
  const { stream } = await decompress(emptying(pieces), name);
  for await (const chunk of stream) {
    hash.update(chunk);
    reader.write(chunk);
    if (reader.position > MAX_BYTES) throw tooLarge(name, `more than ${MAX_BYTES} bytes unpacked`);
  }
  reader.close();
  return { ...collector.parts(), diffId: hash.digest() };
}

async function* emptying(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}

function tooLarge(name: string, size: string): Error {
  return unsupported(`${name}: a turboOCI layer of ${size}, expected at most ${MAX_BYTES}; convert the image to overlaybd instead`);
}

class PartCollector {
  readonly #name: string;
  readonly #parts: { -readonly [part in PartName]?: TurboParts[part] } = {};
  readonly #found: string[] = [];
  #current: { readonly bytes: Uint8Array; filled: number } | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  entry({ path, type, size, storedBytes }: TarEntry): void {
    this.#current = undefined;
    if (this.#found.length < 10) this.#found.push(path);
    const part = TURBO_MEMBERS.get(path);
    if (part === undefined) return;
    const name = `${this.#name}: ${path}`;
    if (type !== "file" || size !== storedBytes) throw corrupt(`${name}: is not a plain file`);
    const before = this.#parts[part];
    if (before !== undefined) throw corrupt(`${name}: the layer has that twice, the first is ${before.name}`);
    if (size > MAX_BYTES) throw tooLarge(this.#name, `${size} bytes of ${path}`);
    if (part === "metadata") this.#parts.metadata = { name, bytes: new Uint8Array(new SharedArrayBuffer(size)) };
    else this.#parts[part] = { name, bytes: new Uint8Array(size) };
    this.#current = { bytes: this.#parts[part]!.bytes, filled: 0 };
  }

  data(bytes: Uint8Array): void {
    if (this.#current === undefined) return;
    this.#current.bytes.set(bytes, this.#current.filled);
    this.#current.filled += bytes.length;
  }

  entryEnd(): void {}

  parts(): Omit<TurboParts, "diffId"> {
    const { metadata, ...others } = this.#parts;
    if (metadata === undefined) {
      const found = this.#found.length === 0 ? "nothing" : this.#found.map((path) => JSON.stringify(path)).join(", ");
      throw corrupt(`${this.#name}: a turboOCI layer without ext4.fs.meta or erofs.fs.meta; it has ${found}`);
    }
    if (others.gzipIndex && others.zstdIndex) throw corrupt(`${this.#name}: a turboOCI layer with both gzip.meta and zstd.meta`);
    return { metadata, ...others };
  }
}
