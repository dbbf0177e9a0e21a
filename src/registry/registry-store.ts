import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import { MAX_CONFIG_BYTES } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, isDigest, type Digest } from "../oci/digest.ts";
import { detectMediaType, MAX_MANIFEST_BYTES } from "../oci/document.ts";
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
import { DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from "../oci/media-types.ts";
import { parseJsonObject } from "../oci/json.ts";
import { parseReferrer, type Referrer } from "../oci/referrers.ts";
import { parseReference, parseTag, type RegistryReference } from "../oci/reference.ts";
import type { Scope } from "./auth.ts";
import { RegistryBlobSource } from "./blob-source.ts";
import { streamBlob } from "./blob-stream.ts";
import { mountBlob } from "./blob-mount.ts";
import { uploadBlob, type UploadOptions } from "./blob-upload.ts";
import { RegistryClient, type RegistryCall, type RegistryOptions } from "./client.ts";
import { parseContentRange } from "./content-range.ts";
import { readBody, type HttpResponse } from "./http.ts";
import { enterReferrer, listReferrers, type ReferrerPlace } from "./referrers.ts";
import { RegistryError } from "./registry-error.ts";
import type { Attempted } from "./retry.ts";
import { withinBudget } from "./time-budget.ts";
import type { UploadJournal } from "./upload-journal.ts";

const ACCEPTED_DOCUMENTS = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
/** May name another algorithm than ours; then it says nothing about a document whose SHA-256 is its name here. */
const DIGEST_HEADER = "docker-content-digest";
const TAGS_MS = 5000;
/** The digest of less than this is known before much of it could be sent. */
const EARLY_UPLOAD_BYTES = 64 << 20;
/** Some registries list all tags whatever they are asked for; a list that is longer is not empty. */
const MAX_TAGS_BYTES = 64 << 10;
const WRONG_DOCUMENT = "try again; if it stays so, the registry or a proxy on the way to it is damaged";

/** What a blob is told by, whatever its type. */
type Content = Pick<Descriptor, "digest" | "size">;

/** The repository of a reference; its tag and digest are not looked at. Sends nothing yet. */
export function openRegistryStore(reference: RegistryReference, options: RegistryOptions = {}): ImageStore {
  return new RegistryStore(reference, options);
}

/** A repository behind the OCI distribution API. */
class RegistryStore implements ImageStore {
  readonly name: string;
  readonly #host: string;
  readonly #repository: string;
  readonly #client: RegistryClient;
  readonly #uploadChunkBytes: number | undefined;
  readonly #uploads: UploadJournal | undefined;
  readonly #pull: readonly Scope[];
  readonly #push: readonly Scope[];
  /** The last upload of each blob that is under way. */
  readonly #puts = new Map<Digest, Promise<unknown>>();
  #lastEntry: Promise<unknown> = Promise.resolve();
  /** Whether the repository had no tag when that was asked, and no document was found before. */
  #vacancy: Promise<boolean> | undefined;

  constructor({ host, repository }: RegistryReference, options: RegistryOptions) {
    this.name = `${host}/${repository}`;
    this.#host = host;
    this.#repository = repository;
    this.#client = new RegistryClient(host, repository, options);
    this.#uploadChunkBytes = options.uploadChunkBytes;
    this.#uploads = options.uploads;
    this.#pull = [{ repository, actions: "pull" }];
    this.#push = [{ repository, actions: "pull,push" }];
  }

  async resolve(target: ResolveTarget): Promise<ResolvedDocument> {
    return await this.#resolve(target, undefined);
  }

  async #resolve({ tag, digest }: ResolveTarget, signal: AbortSignal | undefined): Promise<ResolvedDocument> {
    const name = digest ?? parseTag(tag ?? "latest");
    const what = `${this.name}${digest ? "@" : ":"}${name}`;
    const { bytes, contentType, stated } = await this.#fetchDocument(name, what, signal);
    const found = digestOf(bytes);
    if (digest && found !== digest) throw corrupt(`${what}: content has digest ${found}, expected ${digest}; ${WRONG_DOCUMENT}`);
    const mediaType = detectMediaType(bytes, contentType, what);
    // Nothing else tells a document that was damaged on its way from the one that the tag is on.
    if (!digest && isDigest(stated) && found !== stated)
      throw corrupt(`${what}: content has digest ${found}, expected ${stated}, as the registry says; ${WRONG_DOCUMENT}`);
    return { descriptor: { mediaType, digest: found, size: bytes.length }, bytes };
  }

  async manifest({ digest, size }: Descriptor): Promise<Uint8Array> {
    const what = `${this.name}@${digest}`;
    checkSize(size, MAX_MANIFEST_BYTES, what);
    const { bytes } = await this.#fetchDocument(digest, what, undefined);
    checkContent(bytes, digest, size, what);
    return bytes;
  }

  async #fetchDocument(
    name: string,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<{ bytes: Uint8Array; contentType: string | undefined; stated: string | undefined }> {
    const call = { method: "GET", url: this.#path("manifests", name), headers: { accept: ACCEPTED_DOCUMENTS } } as const;
    const document = await this.#client.call({ ...call, scopes: this.#pull, expect: [200], what, signal }, async (response) => ({
      bytes: await readSmall(response, MAX_MANIFEST_BYTES, what),
      contentType: response.header("content-type"),
      stated: response.header(DIGEST_HEADER),
    }));
    this.#vacancy ??= Promise.resolve(false);
    return document;
  }

  async blob({ digest, size }: Descriptor): Promise<Uint8Array> {
    const call = { ...this.#blobCall(digest), expect: [200] };
    checkSize(size, MAX_CONFIG_BYTES, call.what);
    const bytes = await this.#client.call(call, async (response) => await readSmall(response, size, call.what));
    checkContent(bytes, digest, size, call.what);
    return bytes;
  }

  blobStream(descriptor: Descriptor, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    return streamBlob(this.#client, { ...this.#blobCall(descriptor.digest), signal: this.#client.joinSignal(options.signal) }, descriptor);
  }

  async blobSource({ digest, size }: Descriptor, options?: BlobSourceOptions): Promise<ByteSource> {
    return new RegistryBlobSource(this.#client, this.#blobCall(digest), size, options);
  }

  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    return await this.#isReadable(digest, size, this.#pull, undefined);
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    const question = { what: this.#blobCall(digest).what, signal: this.#client.joinSignal(undefined) };
    const asked = await withinBudget(
      this.#client.readBudgetMs,
      question,
      async (attempted) => await this.#askForByte(digest, this.#pull, attempted),
    );
    if (asked === "absent") return undefined;
    if (asked.size === undefined) throw corrupt(`${this.name}: does not say how large blob ${digest} is`);
    return asked.size;
  }

  async #head({ digest, size }: Content, signal: AbortSignal | undefined): Promise<boolean> {
    const call = { ...this.#blobCall(digest), method: "HEAD", scopes: this.#push, expect: [200, 404], signal } as const;
    return await this.#client.call(call, async (response) => {
      await response.discard();
      if (response.status === 404) return false;
      const length = response.header("content-length");
      return length === undefined || Number(length) === size;
    });
  }

  async #isReadable(digest: Digest, size: number | undefined, scopes: readonly Scope[], signal: AbortSignal | undefined): Promise<boolean> {
    const asked = await this.#askForByte(digest, scopes, { signal });
    if (asked === "absent") return false;
    return size === undefined || asked.size === undefined || asked.size === size;
  }

  /** Asks for a byte of it: some registries say of blobs that a garbage collection has removed, or that are lost, that they are there. */
  async #askForByte(
    digest: Digest,
    scopes: readonly Scope[],
    attempted: Pick<Attempted, "signal" | "onFailure">,
  ): Promise<"absent" | { readonly size: number | undefined }> {
    const call = { ...this.#blobCall(digest), headers: { range: "bytes=0-0" }, scopes, expect: [200, 206, 404, 416], ...attempted };
    return await this.#client.call(call, async (response) => {
      await response.discard();
      return response.status === 404 ? "absent" : { size: sizeOf(response) };
    });
  }

  async #holds(content: Content, signal: AbortSignal | undefined): Promise<boolean> {
    // Asked with the right to push, so that one token serves the whole upload.
    return (await this.#head(content, signal)) && (await this.#canBeReliedOn(content, signal));
  }

  /** What cannot be read, for whatever reason, is better sent once more than named in a manifest. */
  async #canBeReliedOn({ digest, size }: Content, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      return await this.#isReadable(digest, size, this.#push, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof RegistryError) return false;
      throw error;
    }
  }

  /**
   * Of one blob only once at a time: what two images share is sent once, and registries that write a blob's entry anew while somebody
   * reads it refuse manifests that name the blob.
   */
  async putBlob(descriptor: Descriptor, content: ByteSource, options: PutBlobOptions = {}): Promise<PutBlobResult> {
    const { digest } = descriptor;
    const before = this.#puts.get(digest) ?? Promise.resolve();
    const put = before.then(async () => await this.#putBlob(descriptor, content, options));
    const turn = put.catch(() => undefined);
    this.#puts.set(digest, turn);
    try {
      return await put;
    } finally {
      if (this.#puts.get(digest) === turn) this.#puts.delete(digest);
    }
  }

  async #putBlob(descriptor: Descriptor, content: ByteSource, options: PutBlobOptions): Promise<PutBlobResult> {
    const { digest, size } = descriptor;
    const { isHashed = false } = options;
    const { what } = this.#blobCall(digest);
    if (content.size !== size) throw corrupt(`${what}: content to upload is ${content.size} bytes, expected ${size}`);
    const signal = this.#client.joinSignal(options.signal);
    if (await this.#holds(descriptor, signal)) return "exists";
    await uploadBlob({ ...this.#uploadPlace(what, signal), content, digest, isHashed, identity: digest });
    return "uploaded";
  }

  /** In a repository with tags others may share layers with what comes. */
  async putUnhashed(
    content: ByteSource,
    { identity, digest: hash, signal: ownSignal }: PutUnhashedOptions,
  ): Promise<StoredBlob | undefined> {
    const signal = this.#client.joinSignal(ownSignal);
    const isVacant = await (this.#vacancy ??= this.#isVacant());
    signal?.throwIfAborted();
    const upload = { ...this.#uploadPlace(`${this.name}: a blob of ${content.size} bytes`, signal), content, identity };
    if (isVacant) return { digest: await uploadBlob({ ...upload, digest: undefined, isHashed: false }), result: "uploaded" };
    return hash && content.size >= EARLY_UPLOAD_BYTES ? await this.#putEarly(upload, hash()) : undefined;
  }

  /** Begins to send while the digest is found out, which is quicker than sending, and stops if the repository turns out to have the blob. */
  async #putEarly(upload: UploadOptions, hashing: Promise<Digest>): Promise<StoredBlob> {
    const cancel = new AbortController();
    const sending = uploadBlob({ ...upload, digest: hashing, isHashed: true, cancel: cancel.signal });
    sending.catch(() => {}); // is awaited below, perhaps after it failed
    try {
      const digest = await Promise.race([hashing, sending]);
      const isThere = await this.#holds({ digest, size: upload.content.size }, upload.signal);
      if (!isThere) await sending;
      return { digest, result: isThere ? "exists" : "uploaded" };
    } finally {
      cancel.abort();
      await sending.catch(() => {});
    }
  }

  #uploadPlace(what: string, signal: AbortSignal | undefined): Omit<UploadOptions, "content" | "identity"> {
    const [client, repository] = [this.#client, this.#repository];
    return { client, repository, what, signal, chunkBytes: this.#uploadChunkBytes, journal: this.#uploads };
  }

  /** A registry that does not say soon whether there are tags may have some: it costs time to list many. */
  async #isVacant(): Promise<boolean> {
    const what = `${this.name}: tags`;
    const deadline = AbortSignal.timeout(TAGS_MS);
    const signal = this.#client.joinSignal(deadline);
    const call = {
      method: "GET",
      url: `/${this.#repository}/tags/list?n=1`,
      scopes: this.#push,
      expect: [200, 404],
      what,
      signal,
    } as const;
    try {
      const response = await this.#client.open(call);
      if (response.status !== 404) return isWithoutTags(await readBody(response, MAX_TAGS_BYTES), what);
      await response.discard();
      return true;
    } catch (error) {
      if (deadline.aborted || error instanceof LazyError) return false;
      throw error;
    }
  }

  async mountBlob(descriptor: Descriptor, from: string, options: CallOptions = {}): Promise<boolean> {
    const source = repositoryAt(this.#host, from);
    const signal = this.#client.joinSignal(options.signal);
    if (await this.#holds(descriptor, signal)) return true;
    if (source === this.#repository) return false;
    const { digest } = descriptor;
    const { what } = this.#blobCall(digest);
    const isMounted = await mountBlob({ client: this.#client, repository: this.#repository, digest, from: source, what, signal });
    return isMounted && (await this.#canBeReliedOn(descriptor, signal));
  }

  async putManifest(bytes: Uint8Array, mediaType: string, { tag, signal: ownSignal }: PutManifestOptions): Promise<Descriptor> {
    const signal = this.#client.joinSignal(ownSignal);
    const digest = digestOf(bytes);
    const call = {
      method: "PUT",
      url: this.#path("manifests", tag === undefined ? digest : parseTag(tag)),
      headers: { "content-type": mediaType },
      body: bytes,
      scopes: this.#push,
      expect: [200, 201, 202],
      what: `${this.name}${tag === undefined ? `@${digest}` : `:${tag}`}`,
      signal,
    } as const;
    const descriptor = { mediaType, digest, size: bytes.length };
    const referrer = parseReferrer(bytes, descriptor, call.what);
    const isListed = await this.#client.backoff.run(async () => {
      const response = await this.#openPut(call);
      await response.discard();
      const stored = response.header(DIGEST_HEADER);
      if (isDigest(stored) && stored !== digest)
        throw corrupt(`${call.what}: what arrived has digest ${stored}, expected ${digest}; try again`);
      return response.header("oci-subject") !== undefined;
    }, call);
    if (referrer && !isListed) await this.#enterInTurn(referrer, signal);
    return descriptor;
  }

  async #openPut(call: RegistryCall): Promise<HttpResponse> {
    try {
      return await this.#client.open(call);
    } catch (error) {
      throw passingMismatch(error);
    }
  }

  /** Lists are read, changed and written: one after the other, at least within this store. */
  async #enterInTurn(referrer: Referrer, signal: AbortSignal | undefined): Promise<void> {
    const turn = this.#lastEntry.then(async () => await enterReferrer(this.#referrerPlace(signal), referrer));
    this.#lastEntry = turn.catch(() => undefined);
    await turn;
  }

  async referrers(digest: Digest, artifactType?: string): Promise<Descriptor[]> {
    return await listReferrers(this.#referrerPlace(undefined), digest, artifactType);
  }

  #referrerPlace(signal: AbortSignal | undefined): ReferrerPlace {
    return {
      name: this.name,
      repository: this.#repository,
      client: this.#client,
      resolve: async (tag) => await this.#resolve({ tag }, signal),
      put: async (bytes, mediaType, tag) => await this.putManifest(bytes, mediaType, { tag, signal }),
    };
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  #path(kind: "manifests" | "blobs", name: string): string {
    return `/${this.#repository}/${kind}/${name}`;
  }

  #blobCall(digest: Digest): { method: "GET"; url: string; scopes: readonly Scope[]; what: string } {
    return { method: "GET", url: this.#path("blobs", digest), scopes: this.#pull, what: `${this.name}: blob ${digest}` };
  }
}

/** Throws `USAGE` for anything but a repository: what goes into the scope of a token must not be able to name others. */
function repositoryAt(host: string, text: string): string {
  const reference = /[:@]/.test(text) ? undefined : parseReference(`${host}/${text}`);
  if (reference?.kind === "registry") return reference.repository;
  throw new LazyError("USAGE", `repository ${JSON.stringify(text.slice(0, 300))}: expected its name alone, without host, tag and digest`);
}

/**
 * A manifest's own digest is right: it arrived damaged, or the registry read the entry of one of its blobs while somebody else, who
 * stores the same blob, wrote it. The same request may go through.
 */
function passingMismatch(error: unknown): unknown {
  if (!(error instanceof RegistryError) || error.status !== 400 || !error.message.includes("400 DIGEST_INVALID")) return error;
  const { code, message, status, url, retryAfterMs } = error;
  return new RegistryError(code, message, { status, url, retryAfterMs, retryable: true }, { cause: error });
}

function isWithoutTags(bytes: Uint8Array, what: string): boolean {
  const { tags } = parseJsonObject(bytes, what);
  return tags === null || (Array.isArray(tags) && tags.length === 0);
}

/** Of a blob of which a byte was asked for; undefined if the registry does not say. */
function sizeOf(response: HttpResponse): number | undefined {
  if (response.status === 416) return 0; // no other blob is without a first byte
  if (response.status === 206) return parseContentRange(response.header("content-range"))?.total;
  const length = response.header("content-length");
  return length === undefined ? undefined : Number(length);
}

async function readSmall(response: HttpResponse, limit: number, what: string): Promise<Uint8Array> {
  const stated = Number(response.header("content-length") ?? 0);
  if (stated > limit) {
    await response.discard();
    throw corrupt(`${what}: ${stated} bytes, expected at most ${limit}`);
  }
  return await readBody(response, limit);
}

function checkSize(size: number, limit: number, what: string): void {
  if (size > limit) throw corrupt(`${what}: descriptor says ${size} bytes, expected at most ${limit}`);
}

function checkContent(bytes: Uint8Array, digest: Digest, size: number, what: string): void {
  if (bytes.length !== size) throw corrupt(`${what}: ${bytes.length} bytes, expected ${size}`);
  const found = digestOf(bytes);
  if (found !== digest) throw corrupt(`${what}: content has digest ${found}, expected ${digest}`);
}
