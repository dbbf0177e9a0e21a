import type { Digest } from "../oci/digest.ts";
import type { Scope } from "./auth.ts";
import type { RegistryClient } from "./client.ts";
import type { HttpResponse } from "./http.ts";
import { resolveLocation } from "./redirect.ts";
import { RegistryError } from "./registry-error.ts";

export interface BlobMount {
  readonly client: RegistryClient;
  readonly repository: string;
  readonly digest: Digest;
  /** The repository that is thought to hold the blob. */
  readonly from: string;
  /** Names the blob in messages. */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
}

/** Whether the registry took the blob over. A registry that refuses, for whatever reason, is no error: there are other ways. */
export async function mountBlob(mount: BlobMount): Promise<boolean> {
  const { client, repository, digest, from, what, signal } = mount;
  const query = new URLSearchParams({ mount: digest, from }).toString();
  const scopes: Scope[] = [
    { repository, actions: "pull,push" },
    { repository: from, actions: "pull" },
  ];
  const url = `/${repository}/blobs/uploads/?${query}`;
  const call = { method: "POST", url, headers: { "content-length": "0" }, scopes, expect: [201, 202], what, signal } as const;
  try {
    return await client.call(call, async (response) => {
      await response.discard();
      if (response.status === 201) return true;
      await cancelUpload(mount, response);
      return false;
    });
  } catch (error) {
    if (error instanceof RegistryError && error.status !== undefined && !error.retryable) return false;
    throw error;
  }
}

/** The registry has opened an upload instead. One that is not cancelled is forgotten by the registry in its own time. */
async function cancelUpload({ client, repository, what, signal }: BlobMount, response: HttpResponse): Promise<void> {
  try {
    const url = resolveLocation(response, response.header("location"));
    if (url.origin !== client.origin.origin) return;
    const scopes: Scope[] = [{ repository, actions: "pull,push" }];
    const ended = await client.open({ method: "DELETE", url, scopes, expect: [200, 202, 204], what, signal });
    await ended.discard();
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof RegistryError)) throw error;
  }
}
