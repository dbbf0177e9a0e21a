import type { HttpRequest, HttpResponse } from "./http.ts";
import { isLinkLocal, isLoopback } from "./origin.ts";
import { redactUrl, RegistryError } from "./registry-error.ts";

const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** What another origin needs to know. Anything else could be a secret of the registry. */
const FOREIGN_HEADERS: ReadonlySet<string> = new Set(["accept", "range", "content-type", "content-length"]);

/**
 * Sends a request and follows redirects by hand. Authorization and headers of one's own go no further than the first change of scheme, host or port,
 * and is not taken up again if a later redirect leads back.
 */
export async function followRedirects(first: HttpRequest, send: (request: HttpRequest) => Promise<HttpResponse>): Promise<HttpResponse> {
  let request = first;
  for (let followed = 0; ; followed++) {
    const response = await send(request);
    if (!REDIRECTS.has(response.status)) return response;
    await response.discard();
    if (followed === MAX_REDIRECTS) throw refused(response, `more than ${MAX_REDIRECTS} redirects`);
    if (request.body !== undefined) throw refused(response, `redirects a ${request.method} with a body, which is not supported`);
    const url = resolveLocation(response, response.header("location"));
    const headers = url.origin === request.url.origin ? request.headers : withoutSecrets(request.headers);
    request = { ...request, url, headers };
  }
}

/** Where a `Location` header leads, checked: http(s) only, never from https to http, no user, no link-local address. */
export function resolveLocation(response: HttpResponse, location: string | undefined): URL {
  if (!location || !URL.canParse(location, response.url.href)) throw refused(response, "redirects without a usable Location");
  const url = new URL(location, response.url);
  url.hash = "";
  const leadsDown = response.url.protocol === "https:" && url.protocol !== "https:";
  if (leadsDown || (url.protocol !== "https:" && url.protocol !== "http:"))
    throw refused(response, `leads from https to ${redactUrl(url)}`);
  if (url.username || url.password) throw refused(response, "leads to an address with a user name in it");
  if (isLinkLocal(url.hostname) && url.hostname !== response.url.hostname) throw refused(response, `leads to the link-local ${url.host}`);
  if (isLoopback(url.hostname) && !isLoopback(response.url.hostname)) throw refused(response, `leads to the loopback address ${url.host}`);
  return url;
}

function withoutSecrets(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => FOREIGN_HEADERS.has(name.toLowerCase())));
}

function refused(response: HttpResponse, what: string): RegistryError {
  const url = redactUrl(response.url);
  return new RegistryError("DENIED", `${url}: ${what}; not followed`, { url, status: response.status, retryable: false });
}
