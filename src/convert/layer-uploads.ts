import type { ByteSource } from "../bytes/source.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore, PutBlobResult } from "../oci/image-store.ts";
import type { ConvertedLayer } from "./converted-layer.ts";
import type { OutputLayer } from "./output-image.ts";
import type { Semaphore } from "./semaphore.ts";

export interface LayerUploadsOptions {
  readonly destination: ImageStore;
  /** Uploads at a time, of all images. */
  readonly slots: Semaphore;
  /** What other processes that make the same layer call it, too. */
  readonly identity: (index: number) => string;
  readonly layerSent: (index: number, bytes: number) => void;
  readonly layerStored: (index: number, layer: OutputLayer, result: PutBlobResult) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Stores the layers of one image. The first failure aborts `signal`, for whoever makes further layers. */
export class LayerUploads {
  readonly signal: AbortSignal;
  readonly #options: LayerUploadsOptions;
  readonly #failure = new AbortController();
  readonly #running = new Map<number, Promise<void>>();

  constructor(options: LayerUploadsOptions) {
    this.#options = options;
    this.signal = AbortSignal.any([options.signal, this.#failure.signal]);
  }

  /** Begins to store a layer, unless that is done already or under way. */
  start(index: number, layer: ConvertedLayer): void {
    if (layer.content === undefined || this.#running.has(index)) return;
    const upload = this.#store(index, layer, layer.content);
    upload.catch((error: unknown) => this.#failure.abort(error));
    this.#running.set(index, upload);
  }

  /** Waits for all that was begun. Throws the first error. */
  async finish(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  /** Ends what is still under way; nothing is read any more afterwards. */
  async close(): Promise<void> {
    this.#failure.abort(new Error("the upload is not needed any more"));
    await Promise.allSettled(this.#running.values());
  }

  async #store(index: number, layer: ConvertedLayer, content: ByteSource): Promise<void> {
    const { destination, slots, identity, layerSent, layerStored } = this.#options;
    const { signal } = this;
    const release = await slots.acquire();
    try {
      signal.throwIfAborted();
      const sent = observedSource(content, (bytes) => layerSent(index, bytes));
      const digest = async (): Promise<Digest> => (await layer.output()).descriptor.digest;
      const stored = await destination.putUnhashed(sent, { identity: identity(index), digest, signal });
      const output = stored ? await layer.hashed(stored.digest) : await layer.output();
      const result = stored?.result ?? (await destination.putBlob(output.descriptor, sent, { isHashed: true, signal }));
      await layerStored(index, output, result);
    } finally {
      release();
    }
  }
}

function observedSource(source: ByteSource, observe: (bytes: number) => void): ByteSource {
  const { name, size } = source;
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = await source.read(offset, length);
    observe(bytes.length);
    return bytes;
  };
  const observed: ByteSource = { name, size, read, close: async () => await source.close() };
  if (!source.readInto) return observed;
  const readInto = async (offset: number, target: Uint8Array): Promise<void> => {
    await source.readInto?.(offset, target);
    observe(target.length);
  };
  return { ...observed, readInto };
}
