import type { Scope } from "./auth.ts";
import type { RegistryClient } from "./client.ts";
import type { HttpResponse } from "./http.ts";
import { resolveLocation } from "./redirect.ts";
import { RegistryError } from "./registry-error.ts";

/** An upload that the registry has opened. */
export interface UploadSession {
  /** Where the next piece goes; changes with each. */
  url: URL;
  readonly minChunkBytes: number;
  /** Bytes that the registry has acknowledged. */
  arrived: number;
  /** Whether it was gone on with after a failure, of this process or of another. */
  readonly isResumed: boolean;
}

/** Whom to ask about sessions, and for what. */
export interface SessionPlace {
  readonly client: RegistryClient;
  readonly repository: string;
  /** Names the blob in messages. */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
}

export function pushScopes({ repository }: { readonly repository: string }): Scope[] {
  return [{ repository, actions: "pull,push" }];
}

export async function openSession(place: SessionPlace): Promise<UploadSession> {
  const { client, repository, what, signal } = place;
  const headers = { "content-length": "0" };
  const url = `/${repository}/blobs/uploads/`;
  const response = await client.open({ method: "POST", url, headers, scopes: pushScopes(place), expect: [202], what, signal });
  await response.discard();
  const minimum = response.header("oci-chunk-min-length") ?? "";
  const minChunkBytes = /^\d{1,12}$/.test(minimum) ? Number(minimum) : 0;
  return { url: resolveLocation(response, response.header("location")), minChunkBytes, arrived: 0, isResumed: false };
}

/** Where the registry stands; undefined if it has nothing of the blob, claims more than its `size`, or does not say. */
export async function resumeSession(
  place: SessionPlace,
  { url, minChunkBytes }: Pick<UploadSession, "url" | "minChunkBytes">,
  size: number,
): Promise<UploadSession | undefined> {
  const { client, what, signal } = place;
  try {
    const response = await client.open({ method: "GET", url, scopes: pushScopes(place), expect: [204], what, signal });
    await response.discard();
    const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(response.header("range") ?? "")?.[1];
    // Registries write 0-0 for nothing, too.
    const arrived = last === undefined || last === "0" ? 0 : Number(last) + 1;
    if (arrived === 0 || arrived > size) return undefined;
    const location = response.header("location");
    return { url: location === undefined ? url : resolveLocation(response, location), minChunkBytes, arrived, isResumed: true };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof RegistryError) return undefined;
    throw error;
  }
}

/** Gives an upload up, told by where its next piece would go. One that is not cancelled is forgotten by the registry in its own time. */
export async function cancelSession(place: SessionPlace, at: URL | HttpResponse): Promise<void> {
  const { client, what, signal } = place;
  try {
    const url = at instanceof URL ? at : resolveLocation(at, at.header("location"));
    if (url.origin !== client.origin.origin) return;
    const ended = await client.open({ method: "DELETE", url, scopes: pushScopes(place), expect: [200, 202, 204], what, signal });
    await ended.discard();
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof RegistryError)) throw error;
  }
}
