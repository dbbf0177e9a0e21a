import type { ByteSource } from "../bytes/source.ts";
import type { Digest } from "../oci/digest.ts";
import type { HttpResponse } from "./http.ts";
import { resolveLocation } from "./redirect.ts";
import { RegistryError } from "./registry-error.ts";
import type { RememberedUpload, UploadJournal, UploadKey } from "./upload-journal.ts";
import { cancelSession, openSession, pushScopes, resumeSession, type SessionPlace, type UploadSession } from "./upload-session.ts";
import { VerifiedContent, type ContentDigest } from "./verified-content.ts";

/** A connection that brought this much was worth having; failures before it do not count any more. */
const PROGRESS_BYTES = 1 << 20;
/** For registries that refuse a body as too large. */
const SMALL_CHUNK_BYTES = 8 << 20;
/** Pieces of an upload that another process may go on with: each costs an exchange, and at most one is sent in vain ... */
const JOURNALED_CHUNK_BYTES = 16 << 20;
/** ... so they double up to this, which proxies that limit a body to 100 MB let through, while one takes less than QUICK_MS. */
const MAX_JOURNALED_CHUNK_BYTES = 64 << 20;
const QUICK_MS = 250;
const OCTETS = { "content-type": "application/octet-stream" };

/** The registry looks at the digest once more in any case. */
export type BlobUpload = UploadOptions & ContentDigest;

export interface UploadOptions extends SessionPlace {
  readonly content: ByteSource;
  /** Pieces of this size instead of one body. Undefined: as the registry and the journal want it. */
  readonly chunkBytes: number | undefined;
  readonly journal: UploadJournal | undefined;
  /** Under which the journal keeps it. */
  readonly identity: string;
  /** The blob is not wanted any more: the upload ends, at the registry as well. */
  readonly cancel?: AbortSignal | undefined;
}

/**
 * Sends the blob. After a failure it asks the registry how much has arrived and goes on from there; where the registry cannot tell, it
 * starts over with a new session. With a journal, an upload that another process began is gone on with in the same way. Returns the
 * digest. One that is not known yet is sent behind the content; only what a registry takes as one body alone is read twice for it.
 */
export async function uploadBlob(options: BlobUpload): Promise<Digest> {
  const { client, content, cancel } = options;
  const upload = cancel ? { ...options, signal: joinedSignal(options.signal, cancel) } : options;
  const memory = memoryOf(upload);
  let chunkBytes = upload.chunkBytes ?? (memory && JOURNALED_CHUNK_BYTES) ?? (typeof upload.digest === "string" ? undefined : content.size);
  let session = await rememberedSession(upload, memory);
  let furthest = session?.arrived ?? 0;
  let failures = 0;
  for (;;) {
    try {
      session ??= await openSession(upload);
      const digest = await send(upload, session, session.arrived > 0 ? (chunkBytes ?? SMALL_CHUNK_BYTES) : chunkBytes, memory);
      await memory?.forget();
      return digest;
    } catch (error) {
      if (cancel?.aborted) {
        options.signal?.throwIfAborted(); // the next run goes on with it
        await memory?.forget();
        if (session) await cancelSession(options, session.url);
        throw error;
      }
      const otherSize = session && otherChunkBytes(upload, session, chunkBytes, error);
      if (otherSize) ({ chunkBytes } = otherSize);
      const isPassing = session !== undefined && (otherSize !== undefined || isOfSession(error, session));
      failures++;
      await client.backoff.pauseOrThrow(isPassing ? startOver(error) : error, failures, upload);
      session = session && mayHaveArrived(error, session) ? await resumeSession(upload, session, content.size) : undefined;
      if (!session) await memory?.forget();
      else if (session.arrived - furthest >= PROGRESS_BYTES) [furthest, failures] = [session.arrived, 0];
    }
  }
}

function joinedSignal(signal: AbortSignal | undefined, cancel: AbortSignal): AbortSignal {
  return signal ? AbortSignal.any([signal, cancel]) : cancel;
}

/** The journal's entry for one upload. */
interface UploadMemory {
  find(): Promise<RememberedUpload | undefined>;
  remember(session: UploadSession): Promise<void>;
  forget(): Promise<void>;
}

/** Undefined for blobs that are sent again sooner than looked up. */
function memoryOf({ journal, client, repository, content, identity, chunkBytes }: BlobUpload): UploadMemory | undefined {
  if (!journal || content.size <= (chunkBytes ?? JOURNALED_CHUNK_BYTES)) return undefined;
  const { origin } = client.origin;
  const key: UploadKey = { origin, repository, content: identity };
  return {
    find: async () => await journal.find(key),
    // Sessions elsewhere are not taken up again, so there is nothing to keep of them.
    remember: async ({ url, arrived }) => (url.origin === origin ? await journal.remember(key, { location: url, arrived }) : undefined),
    forget: async () => await journal.forget(key),
  };
}

/** What another process began, if the registry agrees that it got at least that far. A file must not be able to send credentials elsewhere. */
async function rememberedSession(upload: BlobUpload, memory: UploadMemory | undefined): Promise<UploadSession | undefined> {
  const remembered = await memory?.find();
  if (!remembered) return undefined;
  const { location, arrived } = remembered;
  const isOwn = location.origin === upload.client.origin.origin && !location.username && !location.password;
  const session = isOwn ? await resumeSession(upload, { url: location, minChunkBytes: 0 }, upload.content.size) : undefined;
  if (session && session.arrived >= arrived) return session;
  await memory?.forget();
  return undefined;
}

/**
 * How to cut what the registry refuses as it was cut: too large a body into pieces, too large pieces into smaller ones; and not at all
 * where the registry refuses the first of the pieces that only we wanted. Undefined: the failure has nothing to do with it.
 */
function otherChunkBytes(
  { chunkBytes: wanted, content }: BlobUpload,
  { arrived }: UploadSession,
  chunkBytes: number | undefined,
  error: unknown,
): { readonly chunkBytes: number | undefined } | undefined {
  const isRefusal = error instanceof RegistryError && error.status !== undefined && !error.retryable && wanted === undefined;
  if (!isRefusal || error.status === 401 || error.status === 403) return undefined;
  if (error.status === 413) return (chunkBytes ?? Infinity) > SMALL_CHUNK_BYTES ? { chunkBytes: SMALL_CHUNK_BYTES } : undefined;
  const isOurs = chunkBytes === JOURNALED_CHUNK_BYTES || chunkBytes === content.size;
  return isOurs && arrived === 0 ? { chunkBytes: undefined } : undefined;
}

/**
 * 404: the session is gone, 416: registry and we disagree on what arrived, 401: the token ran out on the way. A session that was gone on
 * with may hold something else than what was sent.
 */
function isOfSession(error: unknown, { isResumed }: UploadSession): boolean {
  if (!(error instanceof RegistryError)) return false;
  return [401, 404, 416].includes(error.status ?? 0) || (isResumed && error.status === 400 && error.code === "CORRUPT");
}

/** No answer came, or the registry failed in the middle of an upload: what was sent may have arrived. */
function mayHaveArrived(error: unknown, session: UploadSession): boolean {
  if (!(error instanceof RegistryError)) return false;
  return error.status === undefined || (session.arrived > 0 && (error.retryable || error.status === 401 || error.status === 416));
}

/** The same failure, but of the session and not of the blob: another session may go through. */
function startOver(error: unknown): unknown {
  if (!(error instanceof RegistryError)) return error;
  const { status, url, retryAfterMs, message } = error;
  const code = status === 401 ? "DENIED" : "UNAVAILABLE";
  return new RegistryError(code, message, { status, url, retryAfterMs, retryable: true }, { cause: error });
}

async function send(
  upload: BlobUpload,
  session: UploadSession,
  chunkBytes: number | undefined,
  memory: UploadMemory | undefined,
): Promise<Digest> {
  const { client, content, what, signal } = upload;
  const reader = new VerifiedContent(content, what, upload);
  await reader.skip(session.arrived, signal);
  let lastBytes = content.size;
  if (chunkBytes !== undefined) {
    await sendChunks(upload, session, { chunkBytes: Math.max(chunkBytes, session.minChunkBytes), reader, memory });
    lastBytes = 0;
  }
  const digest = await reader.digest(signal);
  const url = new URL(session.url);
  // Appended as text: writing the parsed query anew could spoil a signature in it.
  url.search += `${url.search === "" ? "?" : "&"}digest=${encodeURIComponent(digest)}`;
  const response = await reader.translating(async () =>
    client.open({
      method: "PUT",
      url,
      headers: { ...OCTETS, "content-length": String(lastBytes) },
      body: lastBytes === 0 ? undefined : reader.read(0, lastBytes),
      scopes: pushScopes(upload),
      expect: [201, 204],
      what,
      signal,
    }),
  );
  await response.discard();
  return digest;
}

interface ChunkSending {
  /** Of the first piece. */
  readonly chunkBytes: number;
  readonly reader: VerifiedContent;
  readonly memory: UploadMemory | undefined;
}

/** PATCHes all of the content that has not arrived yet. */
async function sendChunks(upload: BlobUpload, session: UploadSession, { chunkBytes, reader, memory }: ChunkSending): Promise<void> {
  const { client, content, what, signal } = upload;
  let pieceBytes = chunkBytes;
  while (session.arrived < content.size) {
    const start = session.arrived;
    const length = Math.min(pieceBytes, content.size - start);
    const startedAt = performance.now();
    const headers = { ...OCTETS, "content-length": String(length), "content-range": `${start}-${start + length - 1}` };
    const response: HttpResponse = await reader.translating(async () =>
      client.open({
        method: "PATCH",
        url: session.url,
        headers,
        body: reader.read(start, length),
        scopes: pushScopes(upload),
        expect: [202, 204],
        what,
        signal,
      }),
    );
    await response.discard();
    session.url = resolveLocation(response, response.header("location"));
    session.arrived += length;
    await memory?.remember(session);
    const isOurs = upload.chunkBytes === undefined && chunkBytes === JOURNALED_CHUNK_BYTES && pieceBytes < MAX_JOURNALED_CHUNK_BYTES;
    if (isOurs && performance.now() - startedAt < QUICK_MS) pieceBytes *= 2;
  }
}
