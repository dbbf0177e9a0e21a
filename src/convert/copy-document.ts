import type { ByteSource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { KeptNode } from "./image-graph.ts";

export interface CopyOptions {
  /** The source's repository, if it is in the destination's registry. */
  readonly mountFrom: string | undefined;
  readonly tag: string | undefined;
  readonly signal: AbortSignal;
}

/** Stores a document in another place as it is, after all that it consists of. */
export async function copyDocument(source: ImageStore, destination: ImageStore, node: KeptNode, options: CopyOptions): Promise<void> {
  const { mountFrom, tag, signal } = options;
  for (const blob of node.manifest ? [node.manifest.config, ...node.manifest.layers] : []) {
    signal.throwIfAborted();
    await copyBlob(source, destination, blob, { mountFrom, signal });
  }
  await destination.putManifest(node.bytes, node.descriptor.mediaType, { tag, signal });
}

/** Makes sure that a blob of one place is in another. */
export async function copyBlob(
  source: ImageStore,
  destination: ImageStore,
  blob: Descriptor,
  { mountFrom, signal }: Omit<CopyOptions, "tag">,
): Promise<void> {
  if (await destination.hasBlob(blob.digest, blob.size)) return;
  if (mountFrom !== undefined && (await destination.mountBlob(blob, mountFrom, { signal }))) return;
  const content = new StreamedSource(source, blob, signal);
  try {
    await destination.putBlob(blob, content, { signal });
  } finally {
    await content.close();
  }
}

/** A blob that is read front to back in one request, rather than by ranges; going back starts it anew. */
class StreamedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #open: () => AsyncIterator<Uint8Array>;
  #stream: AsyncIterator<Uint8Array> | undefined;
  #position = 0;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(source: ImageStore, descriptor: Descriptor, signal: AbortSignal) {
    this.name = `${source.name}: blob ${descriptor.digest}`;
    this.size = descriptor.size;
    this.#open = () => source.blobStream(descriptor, { signal })[Symbol.asyncIterator]();
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (this.#stream === undefined || offset < this.#position) await this.#restart();
    await this.#take(offset - this.#position);
    return await this.#take(length);
  }

  async close(): Promise<void> {
    await this.#stream?.return?.();
    this.#stream = undefined;
  }

  async #restart(): Promise<void> {
    await this.close();
    this.#stream = this.#open();
    this.#position = 0;
    this.#rest = new Uint8Array(0);
  }

  async #take(length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafe(length);
    for (let at = 0; at < length;) {
      if (this.#rest.length === 0) {
        const next = await this.#stream?.next();
        if (next === undefined || next.done === true)
          throw new LazyError("CORRUPT", `${this.name}: ends after ${this.#position + at} bytes`);
        this.#rest = next.value;
      }
      const some = this.#rest.subarray(0, length - at);
      bytes.set(some, at);
      at += some.length;
      this.#rest = this.#rest.subarray(some.length);
    }
    this.#position += length;
    return bytes;
  }
}
