import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import type {
  CallOptions,
  ImageStore,
  PutBlobOptions,
  PutBlobResult,
  PutManifestOptions,
  ResolvedDocument,
  ResolveTarget,
} from "../oci/image-store.ts";
import type { Capability } from "./hosts-toml.ts";

export interface Mirror {
  readonly store: ImageStore;
  readonly capabilities: ReadonlySet<Capability>;
}

/**
 * A registry with mirrors: reads ask the mirrors in order and then the registry; writes, and questions about what is stored,
 * go to the first mirror that may be pushed to, or else to the registry. Content is checked by digest wherever it comes from; which
 * image a tag stands for is asked only of mirrors that may resolve. A mirror that fails is not asked again, unless the one
 * thing asked for was merely missing there.
 */
export class MirroredStore implements ImageStore {
  readonly name: string;
  readonly #mirrors: Mirror[];
  readonly #server: ImageStore;
  readonly #target: ImageStore;
  readonly #notice: (message: string) => void;
  readonly #failed = new Set<ImageStore>();

  constructor(mirrors: readonly Mirror[], server: ImageStore, notice: (message: string) => void) {
    this.name = server.name;
    this.#mirrors = [...mirrors];
    this.#server = server;
    this.#target = mirrors.find(({ capabilities }) => capabilities.has("push"))?.store ?? server;
    this.#notice = notice;
  }

  async resolve(target: ResolveTarget): Promise<ResolvedDocument> {
    return await this.#ask(target.digest ? "pull" : "resolve", async (store) => await store.resolve(target));
  }

  async manifest(descriptor: Descriptor): Promise<Uint8Array> {
    return await this.#ask("pull", async (store) => await store.manifest(descriptor));
  }

  async blob(descriptor: Descriptor): Promise<Uint8Array> {
    return await this.#ask("pull", async (store) => await store.blob(descriptor));
  }

  async *blobStream(descriptor: Descriptor, options: CallOptions = {}): AsyncGenerator<Uint8Array> {
    const given = new GivenBytes(descriptor);
    for (const store of this.#places("pull")) {
      try {
        yield* given.rest(store.blobStream(descriptor, options));
        return;
      } catch (error) {
        options.signal?.throwIfAborted();
        this.#giveUp(store, error);
      }
    }
  }

  async blobSource(descriptor: Descriptor): Promise<ByteSource> {
    const sources = await Promise.all(this.#places("pull").map(async (store) => ({ store, source: await store.blobSource(descriptor) })));
    let at = 0;
    const read = async (offset: number, length: number): Promise<Uint8Array> => {
      for (;;) {
        const { store, source } = sources[at];
        const mine = at;
        try {
          return await source.read(offset, length);
        } catch (error) {
          this.#giveUp(store, error);
          // Reads run side by side: only the first to fail moves on.
          if (at === mine) at++;
        }
      }
    };
    const distrust = (): void => {
      const { store, source } = sources[at];
      source.distrust?.();
      if (at === sources.length - 1) return;
      at++;
      this.#giveUp(store, corrupt(`gave wrong bytes of blob ${descriptor.digest}`));
    };
    const close = async (): Promise<void> => {
      for (const { source } of sources) await source.close();
    };
    return { name: `${this.name}: blob ${descriptor.digest}`, size: descriptor.size, read, distrust, close };
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    for (const store of this.#places("pull").slice(0, -1)) {
      try {
        const size = await store.blobSize(digest);
        if (size !== undefined) return size;
      } catch (error) {
        this.#giveUp(store, error);
      }
    }
    return await this.#server.blobSize(digest);
  }

  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    return await this.#target.hasBlob(digest, size);
  }

  async putBlob(descriptor: Descriptor, content: ByteSource, options?: PutBlobOptions): Promise<PutBlobResult> {
    return await this.#target.putBlob(descriptor, content, options);
  }

  async mountBlob(descriptor: Descriptor, from: string, options?: CallOptions): Promise<boolean> {
    return await this.#target.mountBlob(descriptor, from, options);
  }

  async putManifest(bytes: Uint8Array, mediaType: string, options: PutManifestOptions): Promise<Descriptor> {
    return await this.#target.putManifest(bytes, mediaType, options);
  }

  /** Of the place that is written to: a mirror need not know what was attached since it looked. */
  async referrers(digest: Digest, artifactType?: string): Promise<Descriptor[]> {
    return await this.#target.referrers(digest, artifactType);
  }

  async close(): Promise<void> {
    for (const { store } of this.#mirrors) await store.close();
    await this.#server.close();
  }

  async #ask<T>(capability: Capability, question: (store: ImageStore) => Promise<T>): Promise<T> {
    for (const store of this.#places(capability).slice(0, -1)) {
      try {
        return await question(store);
      } catch (error) {
        this.#giveUp(store, error);
      }
    }
    return await question(this.#server);
  }

  /** Whom to ask, in order; the registry itself is the last. */
  #places(capability: Capability): ImageStore[] {
    const mirrors = this.#mirrors.filter(({ store, capabilities }) => capabilities.has(capability) && !this.#failed.has(store));
    return [...mirrors.map(({ store }) => store), this.#server];
  }

  /** Throws the error if there is nobody else to ask, or if asking was stopped. */
  #giveUp(store: ImageStore, error: unknown): void {
    if (store === this.#server || !(error instanceof LazyError) || error.code === "USAGE") throw error;
    if (error.code === "NOT_FOUND" || this.#failed.has(store)) return;
    this.#failed.add(store);
    this.#notice(`mirror ${store.name}: ${messageOf(error)}; asking ${this.#server.name} instead`);
  }
}

/** What a reader has already got of a blob, so that another place can go on where one failed. */
class GivenBytes {
  readonly #where: string;
  readonly #hash = new DigestHash();
  #length = 0;

  constructor({ digest }: Descriptor) {
    this.#where = `blob ${digest}`;
  }

  /** What the reader has not got yet, after comparing what it has. */
  async *rest(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const before = this.#length;
    const expected = this.#hash.copy().digest();
    const prefix = new DigestHash();
    let skipped = 0;
    for await (const chunk of stream) {
      const known = chunk.subarray(0, Math.min(chunk.length, before - skipped));
      prefix.update(known);
      skipped += known.length;
      const fresh = chunk.subarray(known.length);
      if (fresh.length === 0) continue;
      if (this.#length === before) this.#compare(prefix, expected);
      this.#hash.update(fresh);
      this.#length += fresh.length;
      yield fresh;
    }
    if (this.#length === before) this.#compare(prefix, expected);
  }

  #compare(prefix: DigestHash, expected: Digest): void {
    if (prefix.copy().digest() === expected) return;
    throw corrupt(`${this.#where}: a mirror has sent other content; leave out the mirror, or run this again`);
  }
}
