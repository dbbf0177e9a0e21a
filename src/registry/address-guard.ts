import type { LookupAddress, LookupOptions } from "node:dns";
import { lookup } from "node:dns/promises";
import type { LookupFunction } from "node:net";
import { messageOf } from "../errors.ts";
import { isLinkLocal, isLoopback } from "./origin.ts";
import { RegistryError } from "./registry-error.ts";

type Resolve = (hostname: string, options: LookupOptions) => Promise<readonly LookupAddress[]>;

const resolveByDns: Resolve = async (hostname, options) => await lookup(hostname, { ...options, all: true });

/**
 * Name look-up for hosts that a registry names: token services, storages. A name that stands for a link-local or a loopback
 * address would lead into the client's own machine or cloud, so it is refused, unless the registry itself is at such an address.
 * It is the look-up of the connection itself, so a name cannot change between check and use.
 */
export function guardedLookup(registry: string, resolve: Resolve = resolveByDns): LookupFunction {
  return (hostname, options, callback) => {
    const answer = async (): Promise<void> => {
      let addresses: readonly LookupAddress[];
      try {
        addresses = await resolveGuarded(hostname, registry, options, resolve);
      } catch (error) {
        return callback(error instanceof Error ? error : new Error(messageOf(error)), []);
      }
      if (options.all) callback(null, [...addresses]);
      else callback(null, addresses[0].address, addresses[0].family);
    };
    void answer();
  };
}

async function resolveGuarded(
  hostname: string,
  registry: string,
  options: LookupOptions,
  resolve: Resolve,
): Promise<readonly LookupAddress[]> {
  const addresses = await resolve(hostname, options);
  for (const isInside of [isLinkLocal, isLoopback]) {
    const inside = addresses.find(({ address }) => isInside(address));
    if (inside === undefined || isInside(registry)) continue;
    const own = await resolve(registry, options).catch(() => []);
    if (own.some(({ address }) => isInside(address))) continue;
    const message = `${hostname}: stands for ${inside.address}, an address of this machine or network; the registry ${registry} led there, not followed`;
    throw new RegistryError("DENIED", message, { url: hostname, retryable: false });
  }
  return addresses;
}
