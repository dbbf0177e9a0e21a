import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import type {
  BlobSourceOptions,
  CallOptions,
  ImageStore,
  PutBlobOptions,
  PutBlobResult,
  PutManifestOptions,
  PutUnhashedOptions,
  ResolvedDocument,
  ResolveTarget,
  StoredBlob,
} from "../oci/image-store.ts";
import type { Capability } from "./hosts-toml.ts";
import { MirrorTurns } from "./mirror-turns.ts";
import { MirroredSource, type PlacedBlob } from "./mirrored-source.ts";

export interface Mirror {
  readonly store: ImageStore;
  readonly capabilities: ReadonlySet<Capability>;
}

/**
 * A registry with mirrors: reads ask the mirrors in order and then the registry; writes, and questions about what is stored,
 * go to the first mirror that may be pushed to, or else to the registry. Content is checked by digest wherever it comes from; which
 * image a tag stands for is asked only of mirrors that may resolve. A mirror that fails is left out for a while, unless the one
 * thing asked for was merely missing there.
 */
export class MirroredStore implements ImageStore {
  readonly name: string;
  readonly #mirrors: Mirror[];
  readonly #server: ImageStore;
  readonly #target: ImageStore;
  readonly #turns: MirrorTurns;

  constructor(mirrors: readonly Mirror[], server: ImageStore, notice: (message: string) => void) {
    this.name = server.name;
    this.#mirrors = [...mirrors];
    this.#server = server;
    this.#target = mirrors.find(({ capabilities }) => capabilities.has("push"))?.store ?? server;
    this.#turns = new MirrorTurns(server, notice);
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
    for (const { store } of this.#turns.admitted(this.#mirrorsWith("pull"))) {
      try {
        yield* given.rest(store.blobStream(descriptor, options));
        this.#turns.succeeded(store);
        return;
      } catch (error) {
        options.signal?.throwIfAborted();
        this.#turns.giveUp(store, error);
      }
    }
    yield* given.rest(this.#server.blobStream(descriptor, options));
  }

  async blobSource(descriptor: Descriptor, options?: BlobSourceOptions): Promise<ByteSource> {
    const open = async (store: ImageStore): Promise<PlacedBlob> => ({ store, source: await store.blobSource(descriptor, options) });
    const mirrors = await Promise.all(this.#mirrorsWith("pull").map(async ({ store }) => await open(store)));
    return new MirroredSource(this.#turns, mirrors, await open(this.#server));
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return await this.#ask("pull", async (store) => {
      const size = await store.blobSize(digest);
      if (size === undefined && store !== this.#server) throw new LazyError("NOT_FOUND", `${store.name} has no blob ${digest}`);
      return size;
    });
  }

  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    return await this.#target.hasBlob(digest, size);
  }

  async putBlob(descriptor: Descriptor, content: ByteSource, options?: PutBlobOptions): Promise<PutBlobResult> {
    return await this.#target.putBlob(descriptor, content, options);
  }

  async putUnhashed(content: ByteSource, options: PutUnhashedOptions): Promise<StoredBlob | undefined> {
    return await this.#target.putUnhashed(content, options);
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
    return await this.#turns.ask(this.#mirrorsWith(capability), { store: this.#server }, async ({ store }) => await question(store));
  }

  #mirrorsWith(capability: Capability): Pick<Mirror, "store">[] {
    return this.#mirrors.filter(({ capabilities }) => capabilities.has(capability));
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
