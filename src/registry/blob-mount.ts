import type { Digest } from "../oci/digest.ts";
import type { Scope } from "./auth.ts";
import type { RegistryClient } from "./client.ts";
import { RegistryError } from "./registry-error.ts";
import { cancelSession } from "./upload-session.ts";

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
      // The registry has opened an upload instead.
      await cancelSession(mount, response);
      return false;
    });
  } catch (error) {
    if (error instanceof RegistryError && error.status !== undefined && !error.retryable) return false;
    throw error;
  }
}
