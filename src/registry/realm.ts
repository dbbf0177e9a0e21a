import { isLinkLocal, isLoopback } from "./origin.ts";
import { redactUrl, RegistryError } from "./registry-error.ts";

/**
 * A registry names the service that it wants its users to get tokens from; a hostile or broken one must not name just anything:
 * https unless the registry itself is plain, no link-local address, no loopback unless the registry is there too.
 */
export function checkRealm(realm: string | undefined, registry: URL): URL {
  const refused = (why: string): RegistryError =>
    new RegistryError(
      "DENIED",
      `${redactUrl(registry)}: token service ${JSON.stringify(realm?.slice(0, 200))} ${why}; no credentials were sent`,
      {
        url: redactUrl(registry),
        retryable: false,
      },
    );
  if (realm === undefined || !URL.canParse(realm)) throw refused("is not a URL");
  const url = new URL(realm);
  const plainIsFine = registry.protocol === "http:" && url.protocol === "http:";
  if (url.protocol !== "https:" && !plainIsFine) throw refused("is not reached over https");
  if (url.username || url.password) throw refused("has a user name in its address");
  if (isLinkLocal(url.hostname)) throw refused("is at a link-local address");
  if (isLoopback(url.hostname) && !isLoopback(registry.hostname)) throw refused("is at a loopback address");
  return url;
}

/**
 * Passwords go to token services of the registry's own domain, or to those that the user has named: a registry that was taken over,
 * or a proxy that answers in its place, could otherwise have them sent anywhere. Strangers may get tokens anywhere.
 */
export function checkAudience(realm: URL, registry: URL, trusted: readonly string[]): void {
  if (realm.hostname === registry.hostname || domainOf(realm.hostname) === domainOf(registry.hostname)) return;
  if (isLoopback(realm.hostname) && isLoopback(registry.hostname)) return;
  if (trusted.some((host) => host === realm.host || host === realm.hostname)) return;
  const url = redactUrl(registry);
  const message = `${url}: token service ${realm.host} is in another domain than the registry; no credentials were sent; if it is the right one, allow it with --token-service ${realm.host}, or a service with lazylayer.tokenServices in its configuration`;
  throw new RegistryError("DENIED", message, { url, retryable: false });
}

/** Second-level labels under which countries register names: `example.co.uk` is a domain, `co.uk` is not. */
const SHARED_SECOND_LEVELS: ReadonlySet<string> = new Set(["ac", "co", "com", "edu", "gob", "gov", "go", "ne", "net", "or", "org", "nom"]);

/** The part of a name that somebody registered, by rule of thumb; of an address, all of it. */
function domainOf(hostname: string): string {
  if (hostname.startsWith("[") || /^[0-9.]+$/.test(hostname)) return hostname;
  const labels = hostname.split(".");
  const isCountry = labels.length > 2 && labels.at(-1)!.length === 2 && SHARED_SECOND_LEVELS.has(labels.at(-2)!);
  return labels.slice(isCountry ? -3 : -2).join(".");
}
