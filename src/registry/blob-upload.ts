import type { ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash } from "../oci/digest.ts";
import type { Scope } from "./auth.ts";
import type { RegistryClient } from "./client.ts";
import type { HttpResponse } from "./http.ts";
import { resolveLocation } from "./redirect.ts";
import { RegistryError } from "./registry-error.ts";

const READ_BYTES = 1 << 20;
/** A connection that brought this much was worth having; failures before it do not count any more. */
const PROGRESS_BYTES = 1 << 20;
const FALLBACK_CHUNK_BYTES = 8 << 20;
const OCTETS = { "content-type": "application/octet-stream" };

export interface BlobUpload {
  readonly client: RegistryClient;
  readonly repository: string;
  readonly descriptor: Descriptor;
  readonly content: ByteSource;
  /** Names the blob in messages. */
  readonly what: string;
  readonly chunkBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Sends the blob. After a broken connection it asks the registry how much has arrived and goes
 * on from there; where the registry cannot tell, and after any other failure, it starts over with a new session.
 */
export async function uploadBlob(upload: BlobUpload): Promise<void> {
  const { client, signal } = upload;
  let { chunkBytes } = upload;
  let session: Session | undefined;
  let failures = 0;
  for (;;) {
    try {
      session ??= await openSession(upload);
      await send(upload, session, session.arrived > 0 ? (chunkBytes ?? FALLBACK_CHUNK_BYTES) : chunkBytes);
      return;
    } catch (error) {
      const isTooLarge = session !== undefined && error instanceof RegistryError && error.status === 413 && chunkBytes === undefined;
      if (isTooLarge) chunkBytes = FALLBACK_CHUNK_BYTES;
      failures++;
      await client.backoff.pauseOrThrow(session && isOfSession(error, isTooLarge) ? startOver(error) : error, failures, signal);
      const resumed = session && isBroken(error) ? await resumeSession(upload, session) : undefined;
      if (resumed && session && resumed.arrived - session.arrived >= PROGRESS_BYTES) failures = 0;
      session = resumed;
    }
  }
}

/** 404: the session is gone, 416: registry and we disagree on what arrived, 401: the token ran out on the way. */
function isOfSession(error: unknown, isTooLarge: boolean): error is RegistryError {
  return error instanceof RegistryError && (isTooLarge || [401, 404, 416].includes(error.status ?? 0));
}

/** No answer came: what was sent may have arrived. */
function isBroken(error: unknown): boolean {
  return error instanceof RegistryError && error.status === undefined;
}

/** Where the registry stands; undefined if it has nothing of the blob, or does not say. */
async function resumeSession(upload: BlobUpload, { url, minChunkBytes }: Session): Promise<Session | undefined> {
  const { client, descriptor, what, signal } = upload;
  try {
    const response = await client.open({ method: "GET", url, scopes: pushScopes(upload), expect: [204], what, signal });
    await response.discard();
    const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(response.header("range") ?? "")?.[1];
    // Registries write 0-0 for nothing, too.
    const arrived = last === undefined || last === "0" ? 0 : Number(last) + 1;
    if (arrived === 0 || arrived > descriptor.size) return undefined;
    const location = response.header("location");
    return { url: location === undefined ? url : resolveLocation(response, location), minChunkBytes, arrived };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof RegistryError) return undefined;
    throw error;
  }
}

/** The same failure, but of the session and not of the blob: another session may go through. */
function startOver(error: RegistryError): RegistryError {
  const { status, url, retryAfterMs, message } = error;
  const code = status === 401 ? "DENIED" : "UNAVAILABLE";
  return new RegistryError(code, message, { status, url, retryAfterMs, retryable: true }, { cause: error });
}

interface Session {
  /** Where the next piece goes; changes with each. */
  url: URL;
  readonly minChunkBytes: number;
  /** Bytes that the registry has acknowledged. */
  readonly arrived: number;
}

async function openSession(upload: BlobUpload): Promise<Session> {
  const { client, repository, what, signal } = upload;
  const headers = { "content-length": "0" };
  const url = `/${repository}/blobs/uploads/`;
  const response = await client.open({ method: "POST", url, headers, scopes: pushScopes(upload), expect: [202], what, signal });
  await response.discard();
  const minimum = response.header("oci-chunk-min-length") ?? "";
  const minChunkBytes = /^\d{1,12}$/.test(minimum) ? Number(minimum) : 0;
  return { url: resolveLocation(response, response.header("location")), minChunkBytes, arrived: 0 };
}

function pushScopes(upload: BlobUpload): Scope[] {
  return [{ repository: upload.repository, actions: "pull,push" }];
}

async function send(upload: BlobUpload, session: Session, chunkBytes: number | undefined): Promise<void> {
  const { client, descriptor, what, signal } = upload;
  const reader = new VerifiedContent(upload);
  await reader.skip(session.arrived);
  let lastBytes = descriptor.size;
  if (chunkBytes !== undefined) {
    await sendChunks(upload, session, Math.max(chunkBytes, session.minChunkBytes), reader);
    lastBytes = 0;
  }
  const url = new URL(session.url);
  // Appended as text: writing the parsed query anew could spoil a signature in it.
  url.search += `${url.search === "" ? "?" : "&"}digest=${encodeURIComponent(descriptor.digest)}`;
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
}

/** PATCHes all of the content that has not arrived yet. */
async function sendChunks(upload: BlobUpload, session: Session, chunkBytes: number, reader: VerifiedContent): Promise<void> {
  const { client, descriptor, what, signal } = upload;
  for (let start = session.arrived; start < descriptor.size; start += chunkBytes) {
    const length = Math.min(chunkBytes, descriptor.size - start);
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
  }
}

/** Hands out the content once, front to back, and holds its last bytes back until the digest has been checked. */
class VerifiedContent {
  readonly #content: ByteSource;
  readonly #descriptor: Descriptor;
  readonly #what: string;
  readonly #hash = new DigestHash();
  #failure: unknown;

  constructor({ content, descriptor, what }: BlobUpload) {
    this.#content = content;
    this.#descriptor = descriptor;
    this.#what = what;
  }

  /** Takes what has been sent before into the digest. */
  async skip(length: number): Promise<void> {
    for await (const _ of this.read(0, length));
  }

  async *read(start: number, length: number): AsyncGenerator<Uint8Array> {
    try {
      for (let at = start; at < start + length; at += READ_BYTES) {
        const bytes = await this.#content.read(at, Math.min(READ_BYTES, start + length - at));
        this.#hash.update(bytes);
        if (at + bytes.length === this.#descriptor.size) this.#check();
        yield bytes;
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  /** A request that fails because its body could not be read fails with the body's error, not with the connection's. */
  async translating<T>(request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw this.#failure ?? error;
    }
  }

  #check(): void {
    const found = this.#hash.digest();
    const { digest } = this.#descriptor;
    if (found !== digest) throw corrupt(`${this.#what}: content to upload has digest ${found}, expected ${digest}`);
  }
}
