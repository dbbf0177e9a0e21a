import { decompress } from "../compression/decompress.ts";
import { corrupt, unsupported } from "../errors.ts";
import { MAX_PREFETCH_FILE_BYTES, parsePrefetchFile, type PrefetchFile } from "../formats/trace/prefetch-file.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf } from "../oci/digest.ts";
import { ANNOTATION } from "../oci/overlaybd-layer.ts";
import type { TarEntry } from "../tar/tar-entry.ts";
import { TarReader } from "../tar/tar-reader.ts";
import type { BlobPlace } from "./blob-place.ts";

const MEMBER = "trace";
/** The trace, and the tar around it. */
const MAX_BYTES = MAX_PREFETCH_FILE_BYTES + 64 * 1024;

/** An image's layers without the one on top that is no part of the device, if there is one. See docs/formats/trace.md. */
export function splitAcceleration(layers: readonly Descriptor[]): {
  readonly lowers: readonly Descriptor[];
  readonly acceleration: Descriptor | undefined;
} {
  const top = layers.at(-1);
  if (top?.annotations?.[ANNOTATION.accelerationLayer] !== "yes") return { lowers: layers, acceleration: undefined };
  return { lowers: layers.slice(0, -1), acceleration: top };
}

/**
 * The trace, or list of paths, of an acceleration layer; undefined if it has none, or an empty one.
 * Throws `CORRUPT` for a blob that is not what its digest says, or a damaged trace, `UNSUPPORTED` for one that is too large.
 */
export async function readAcceleration(descriptor: Descriptor, place: Pick<BlobPlace, "blobSource">): Promise<PrefetchFile | undefined> {
  const { size, digest } = descriptor;
  if (size > MAX_BYTES) throw unsupported(`acceleration layer ${digest}: ${size} bytes, expected at most ${MAX_BYTES}`);
  const source = await place.blobSource(descriptor);
  try {
    const blob = await source.read(0, source.size);
    const found = digestOf(blob);
    if (found !== digest) throw corrupt(`${source.name}: content has digest ${found}, expected ${digest}`);
    const bytes = await readMember(blob, source.name);
    return bytes === undefined || bytes.length === 0 ? undefined : parsePrefetchFile(bytes, `${source.name}: ${MEMBER}`);
  } finally {
    await source.close();
  }
}

async function readMember(blob: Uint8Array, name: string): Promise<Uint8Array | undefined> {
  const member = new Member();
  const reader = new TarReader(member, name);
  const { stream } = await decompress(once(blob), name);
  for await (const chunk of stream) {
    reader.write(chunk);
    if (reader.position > MAX_BYTES) throw unsupported(`${name}: more than ${MAX_BYTES} bytes unpacked`);
  }
  reader.close();
  return member.bytes();
}

async function* once(blob: Uint8Array): AsyncGenerator<Uint8Array> {
  yield blob;
}

class Member {
  #pieces: Uint8Array[] | undefined;
  #isCurrent = false;

  entry({ path, type }: TarEntry): void {
    this.#isCurrent = path === MEMBER && type === "file";
    if (this.#isCurrent) this.#pieces = [];
  }

  data(bytes: Uint8Array): void {
    if (this.#isCurrent) this.#pieces?.push(new Uint8Array(bytes));
  }

  entryEnd(): void {}

  bytes(): Uint8Array | undefined {
    return this.#pieces && Buffer.concat(this.#pieces);
  }
}
