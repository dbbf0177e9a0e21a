import { isLoopback } from "./origin.ts";
import { RegistryError } from "./registry-error.ts";
import { speaksTls } from "./tls-probe.ts";

/** What a registry says, or does not say, that was asked over plain HTTP and speaks TLS. */
function mayBeTls(error: unknown): error is RegistryError {
  return error instanceof RegistryError && error.retryAfterMs === undefined && (error.status === undefined || error.status === 400);
}

/**
 * The error to throw instead of one over plain HTTP, if the registry turns out to speak TLS; undefined if it does not.
 * `isDefault`: nobody asked for plain HTTP, it is what is used on this machine.
 */
export async function explainPlainHttp(error: unknown, origin: URL, isDefault: boolean): Promise<RegistryError | undefined> {
  if (!mayBeTls(error) || !(await speaksTls(origin.host))) return undefined;
  const trust = "give --root-ca FILE (its authority's certificate) or --insecure";
  const what = isDefault
    ? `the registry speaks TLS, and registries on this machine are asked over plain HTTP unless told otherwise: ${trust}`
    : `the registry speaks TLS, and was asked over plain HTTP: leave out --plain-http (--plain), or write https:// in its hosts.toml` +
      (isLoopback(origin.host) ? `, and ${trust}` : "");
  return new RegistryError("UNAVAILABLE", `${origin.origin}: ${what}`, { url: origin.origin, retryable: false }, { cause: error });
}
