import type { ByteSource } from "../bytes/source.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";

/** What to look up: by digest if there is one, otherwise by tag; neither means the only image of a layout. */
export interface ResolveTarget {
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
}

/** A manifest or an index, byte for byte as it is stored. */
export interface ResolvedDocument {
  /** Media type, digest and size of `bytes`. */
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

export interface CallOptions {
  /** Ends the call, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface BlobSourceOptions {
  /** Nobody waits for what is read: good to know for who watches reads, or bounds their time. */
  readonly inBackground?: boolean | undefined;
}

export interface PutManifestOptions extends CallOptions {
  readonly tag?: string | undefined;
}

export interface PutBlobOptions extends CallOptions {
  /** The caller has just hashed the content. A place whose other end hashes what it gets need not do so again. */
  readonly isHashed?: boolean | undefined;
}

export type PutBlobResult = "uploaded" | "exists";

export interface PutUnhashedOptions extends CallOptions {
  /** What another process that makes the same content calls it, too, so that it can go on with an upload that broke off. */
  readonly identity: string;
  /** Reads the content for its digest: for places that want to know it before all of the content has been sent. */
  readonly digest?: (() => Promise<Digest>) | undefined;
}

export interface StoredBlob {
  readonly digest: Digest;
  readonly result: PutBlobResult;
}

/**
 * One image repository, wherever it lives: a registry or a layout directory. `image-store.contract.ts` tests each of them.
 *
 * Whatever is read is checked against the digest that was *asked for*; what a place claims about its own content is ignored.
 * Errors: `NOT_FOUND`, `DENIED`, `CORRUPT` (content contradicts digest or size), `UNAVAILABLE` (after the place's own retries).
 * Calls may run concurrently. Whoever opened a store closes it.
 */
export interface ImageStore {
  /** For messages; holds no secrets. */
  readonly name: string;

  /** The top manifest or index. */
  resolve(target: ResolveTarget): Promise<ResolvedDocument>;

  /** The bytes of a manifest or an index, checked by digest and size. At most 4 MiB. */
  manifest(descriptor: Descriptor): Promise<Uint8Array>;

  /** A small blob, such as a config, checked by digest and size. At most 8 MiB. */
  blob(descriptor: Descriptor): Promise<Uint8Array>;

  /**
   * A blob front to back, in pieces that are valid until the next one is asked for; broken transfers resume where they stopped.
   * Nothing may be trusted before the stream has ended: it throws `CORRUPT` at its end if digest or length differ.
   * A stream that is not read to its end holds a connection; `return()` (leaving a `for await`) or the signal frees it.
   */
  blobStream(descriptor: Descriptor, options?: CallOptions): AsyncIterable<Uint8Array>;

  /** Range reads of a blob, of the descriptor's size. Content is not checked: the caller's format must do that. */
  blobSource(descriptor: Descriptor, options?: BlobSourceOptions): Promise<ByteSource>;

  /** The size of a blob that can be read; undefined if it is not there. */
  blobSize(digest: Digest): Promise<number | undefined>;

  /** Whether the blob is there, with that size if one is given. */
  hasBlob(digest: Digest, size?: number): Promise<boolean>;

  /**
   * Makes sure that the blob is there. Idempotent. The content is read front to back, once a try, and stays open;
   * content that contradicts the descriptor is `CORRUPT` and leaves no blob behind.
   */
  putBlob(descriptor: Descriptor, content: ByteSource, options?: PutBlobOptions): Promise<PutBlobResult>;

  /**
   * Stores content whose digest nobody knows, out of one read of it: it is hashed on the way. A place that may well have the blob finds
   * out about its digest meanwhile, if it is told how. Undefined, and nothing is sent, where the digest should be known first.
   */
  putUnhashed(content: ByteSource, options: PutUnhashedOptions): Promise<StoredBlob | undefined>;

  /**
   * Whether the blob is there afterwards: because it was, or taken over from another repository of the same place. Never sends content,
   * and leaves nothing behind when it is false. `from` is a repository without host; places without repositories do not look at it.
   */
  mountBlob(descriptor: Descriptor, from: string, options?: CallOptions): Promise<boolean>;

  /**
   * Stores a manifest or an index. Atomic: with a tag, readers see the old image or the new one.
   * Without a tag it can be reached by digest only. Put blobs and child manifests first.
   * A document with a subject is among the referrers of that subject afterwards, whether the place keeps such lists by itself or not.
   */
  putManifest(bytes: Uint8Array, mediaType: string, options: PutManifestOptions): Promise<Descriptor>;

  /** Descriptors of the documents whose subject this is, with artifact type and annotations; the subject itself need not exist. */
  referrers(digest: Digest, artifactType?: string): Promise<Descriptor[]>;

  /** Frees connections and files. Idempotent; running calls fail. */
  close(): Promise<void>;
}
