import { isLinkLocal, isLoopback } from "./origin.ts";
import { redactUrl, RegistryError } from "./registry-error.ts";

/**
 * A registry names the service that its users' passwords are sent to; a hostile or broken one must not name just anything:
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
