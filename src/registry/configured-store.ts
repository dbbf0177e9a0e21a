import type { ImageStore } from "../oci/image-store.ts";
import { DOCKER_HUB_HOST, type RegistryReference } from "../oci/reference.ts";
import type { RegistryOptions } from "./client.ts";
import type { CredentialSource } from "./credentials.ts";
import { joinTls, type HostDirectories, type RegistryPlace } from "./host-directories.ts";
import { MirroredStore } from "./mirrored-store.ts";
import { isLoopback } from "./origin.ts";
import { openRegistryStore } from "./registry-store.ts";
import { speaksTls } from "./tls-probe.ts";
import type { HostTls, TlsOptions } from "./tls.ts";

/** A mirror has the registry to fall back on, so it is not waited for as long. */
const MIRROR_TRIES = 2;

export interface ConfiguredOptions extends RegistryOptions {
  /** Where it is configured how registries are reached. */
  readonly hosts: HostDirectories;
  /** For mirrors: what somebody gave for the registry alone must not be sent to them. */
  readonly mirrorCredentials?: CredentialSource | undefined;
  /** Told when a mirror fails. */
  readonly notice: (message: string) => void;
}

/** The repository of a reference, reached as its registry's `certs.d` directory says: certificates, address, mirrors. Sends nothing yet. */
export async function openConfiguredStore(reference: RegistryReference, options: ConfiguredOptions): Promise<ImageStore> {
  const { hosts, mirrorCredentials: _, notice, ...rest } = options;
  const places = await hosts.placesFor(reference.host);
  // A plain address is only ever taken from the configuration itself.
  const server = places?.server;
  const plainHttp = rest.plainHttp ?? ((await isSecured(reference.host, options)) ? false : undefined);
  const found = places?.mirrors ?? [];
  const budgets = shareBudget(rest.readBudgetMs, found.length);
  const store = openRegistryStore(reference, {
    ...rest,
    readBudgetMs: budgets.server,
    plainHttp,
    base: server?.url,
    headers: server?.headers,
    tls: withHosts(rest.tls, hosts, server && { host: server.url?.host ?? reference.host, tls: server.tls }),
  });
  const mirrors = found.map((place) => ({
    capabilities: place.capabilities,
    store: openRegistryStore(
      { ...reference, host: place.url.host },
      { ...mirrorOptions(place, reference.host, options), readBudgetMs: budgets.mirror },
    ),
  }));
  return mirrors.length === 0 ? store : new MirroredStore(mirrors, store, notice);
}

/** A read asks one place after the other: mirrors that hang, all of them together, leave the registry half of the time. */
function shareBudget(budgetMs: number | undefined, mirrors: number): { readonly server?: number; readonly mirror?: number } {
  if (budgetMs === undefined) return {};
  return mirrors === 0 ? { server: budgetMs } : { server: budgetMs / 2, mirror: budgetMs / 2 / mirrors };
}

/** Whoever says what a registry is trusted by means TLS, also on this machine. */
async function isSecured(host: string, { tls = {}, hosts }: ConfiguredOptions): Promise<boolean> {
  if (tls.extraRoots?.length || tls.clientCertificates?.length) return true;
  const { roots, clientCertificates, insecure } = await hosts.tlsFor(host);
  if (roots.length > 0 || clientCertificates.length > 0 || insecure) return true;
  // Not to verify is also said of registries without TLS; on this machine it costs nothing to see which it is.
  return tls.insecure === true && isLoopback(host) && (await speaksTls(host));
}

function mirrorOptions(place: RegistryPlace, registry: string, options: ConfiguredOptions): RegistryOptions {
  const { hosts, mirrorCredentials, notice: _, ...rest } = options;
  // The client certificate that was given by hand is for the registry that was named, like the password.
  const tls = { ...rest.tls, clientCertificates: [] };
  return {
    ...rest,
    base: place.url,
    namespace: place.url.host === registry ? undefined : registry === DOCKER_HUB_HOST ? "docker.io" : registry,
    headers: place.headers,
    credentials: place.url.host === registry ? rest.credentials : mirrorCredentials,
    retry: { ...rest.retry, tries: Math.min(MIRROR_TRIES, rest.retry?.tries ?? MIRROR_TRIES) },
    tls: withHosts(tls, hosts, { host: place.url.host, tls: place.tls }),
  };
}

function withHosts(tls: TlsOptions | undefined, hosts: HostDirectories, own: { host: string; tls: HostTls } | undefined): TlsOptions {
  const hostTls = async (host: string): Promise<HostTls> => {
    const found = await hosts.tlsFor(host);
    return own?.host === host ? joinTls(found, own.tls) : found;
  };
  return { ...tls, hostTls };
}
