import { corrupt, LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { MAX_MANIFEST_BYTES } from "../oci/document.ts";
import type { ResolvedDocument } from "../oci/image-store.ts";
import { parseIndex } from "../oci/index.ts";
import { encodeJson } from "../oci/json.ts";
import { OCI_INDEX } from "../oci/media-types.ts";
import { filterReferrers, MAX_REFERRERS, parseReferrersList, referrersTag, withReferrer, type Referrer } from "../oci/referrers.ts";
import type { Scope } from "./auth.ts";
import type { RegistryClient } from "./client.ts";
import { readBody, type HttpResponse } from "./http.ts";
import { redactUrl, RegistryError } from "./registry-error.ts";

const MAX_PAGES = 200;
/** How often a list that others change at the same time is written again. */
const MAX_WRITES = 10;

/** The repository whose referrers are meant, and how its documents are read and written. */
export interface ReferrerPlace {
  readonly name: string;
  readonly repository: string;
  readonly client: RegistryClient;
  resolve(tag: string): Promise<ResolvedDocument>;
  put(bytes: Uint8Array, mediaType: string, tag: string): Promise<unknown>;
}

interface Page {
  readonly descriptors: readonly Descriptor[];
  readonly next: URL | undefined;
}

/** What belongs to a document: from the API of the distribution specification, or from the tag that stands in for it. */
export async function listReferrers(place: ReferrerPlace, subject: Digest, artifactType: string | undefined): Promise<Descriptor[]> {
  const where = `${place.name}: referrers of ${subject}`;
  // The registry may filter, to send less; whether it did so does not matter, as the answer is filtered here in any case.
  const query = artifactType === undefined ? "" : `?${new URLSearchParams({ artifactType }).toString()}`;
  let url: URL | string | undefined = `/${place.repository}/referrers/${subject}${query}`;
  const found: Descriptor[] = [];
  for (let pages = 0; url !== undefined; pages++) {
    if (pages === MAX_PAGES || found.length > MAX_REFERRERS) throw corrupt(`${where}: the list does not end`);
    const page: Page | undefined = await readPage(place, url, where);
    if (page === undefined && pages === 0) return filterReferrers(await readTag(place, subject), artifactType, where);
    found.push(...(page?.descriptors ?? []));
    url = page?.next;
  }
  return filterReferrers(found, artifactType, where);
}

/** Undefined if the registry has no such API. */
async function readPage(place: ReferrerPlace, url: URL | string, what: string): Promise<Page | undefined> {
  const scopes: Scope[] = [{ repository: place.repository, actions: "pull" }];
  const call = { method: "GET", url, headers: { accept: OCI_INDEX }, scopes, expect: [200, 404, 405], what } as const;
  return await place.client.call(call, async (response) => {
    if (response.status !== 200) {
      await response.discard();
      return undefined;
    }
    const bytes = await readBody(response, MAX_MANIFEST_BYTES);
    return { descriptors: parseIndex(bytes, OCI_INDEX, what).manifests, next: nextPage(response) };
  });
}

/** The address of `Link: <…>; rel="next"`. It must be at the same place: the question is asked with the registry's credentials. */
function nextPage(response: HttpResponse): URL | undefined {
  const target = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(response.header("link") ?? "")?.[1];
  if (target === undefined) return undefined;
  const url = URL.canParse(target, response.url.href) ? new URL(target, response.url) : undefined;
  if (url && url.origin === response.url.origin && !url.username && !url.password) return url;
  const shown = redactUrl(response.url);
  throw new RegistryError("DENIED", `${shown}: the list goes on at another place; not followed`, { url: shown, retryable: false });
}

async function readTag(place: ReferrerPlace, subject: Digest): Promise<readonly Descriptor[]> {
  const stored = await readList(place, subject);
  return stored ? parseReferrersList(stored.bytes, stored.descriptor.mediaType, listName(place, subject)).manifests : [];
}

async function readList(place: ReferrerPlace, subject: Digest): Promise<ResolvedDocument | undefined> {
  try {
    return await place.resolve(referrersTag(subject));
  } catch (error) {
    if (error instanceof LazyError && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

/**
 * Enters a referrer into the list under the tag of its subject. Others may write the same list at the same time, and a registry
 * without the API has no way to write only what was not changed: the list is read again right before and after each write, and
 * written once more when it is not what it was, or lacks what was entered.
 */
export async function enterReferrer(place: ReferrerPlace, { subject, descriptor }: Referrer): Promise<void> {
  const where = listName(place, subject.digest);
  for (let writes = 0; writes < MAX_WRITES; writes++) {
    const before = await readList(place, subject.digest);
    const list = before && parseReferrersList(before.bytes, before.descriptor.mediaType, where);
    const entered = withReferrer(list, descriptor);
    if (entered === list) return;
    const bytes = encodeJson(entered);
    if (bytes.length > MAX_MANIFEST_BYTES)
      throw corrupt(`${where}: would be ${bytes.length} bytes, expected at most ${MAX_MANIFEST_BYTES}`);
    const justBefore = await readList(place, subject.digest);
    if (justBefore?.descriptor.digest !== before?.descriptor.digest) continue;
    await place.put(bytes, before?.descriptor.mediaType ?? OCI_INDEX, referrersTag(subject.digest));
  }
  const message = `${where}: others change it all the time; ${descriptor.digest} is stored, but not listed as a referrer; run this again`;
  throw new RegistryError("UNAVAILABLE", message, { url: place.name, retryable: true });
}

function listName(place: ReferrerPlace, subject: Digest): string {
  return `${place.name}:${referrersTag(subject)}`;
}
