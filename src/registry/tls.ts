import { createPrivateKey } from "node:crypto";
import type { SecureContext } from "node:tls";
import { LazyError, messageOf } from "../errors.ts";
import { tls } from "./node-http.ts";

/** A client's certificate, with the chain behind it if there is one, and its key; PEM. */
export interface ClientCertificate {
  readonly certificate: string;
  readonly key: string;
  /** Where it comes from, for messages. */
  readonly name: string;
}

/** What connections to one host need beside that which holds for all. */
export interface HostTls {
  /** PEM, each with one or more certificates. */
  readonly roots: readonly string[];
  readonly clientCertificates: readonly ClientCertificate[];
  /** Skips verification. */
  readonly insecure: boolean;
}

export interface TlsOptions {
  /** The authorities that are trusted for all hosts, PEM; asked at the first connection with TLS. Undefined: Node's own. */
  readonly systemRoots?: (() => Promise<readonly string[] | undefined>) | undefined;
  /** Authorities that are trusted as well, for all hosts; PEM. */
  readonly extraRoots?: readonly string[] | undefined;
  /** Shown to the registry's own host only: who the client is, is no business of a storage or a token service elsewhere. */
  readonly clientCertificates?: readonly ClientCertificate[] | undefined;
  /** Skips verification, for all hosts. */
  readonly insecure?: boolean | undefined;
  /** What is configured for a host (`host[:port]`), be it the registry's, a token service's or a storage's. */
  readonly hostTls?: ((host: string) => Promise<HostTls>) | undefined;
}

/** What Node's TLS takes: without a context, its own roots. */
export interface TlsSettings {
  readonly rejectUnauthorized: boolean;
  readonly secureContext?: SecureContext;
}

/** Settings for one host; `isHome` says that it is the registry's own. Throws `USAGE` for certificates that cannot be used. */
export async function tlsSettings(options: TlsOptions, host: HostTls | undefined, isHome: boolean): Promise<TlsSettings> {
  const rejectUnauthorized = !(options.insecure ?? false) && !(host?.insecure ?? false);
  const extra = [...(options.extraRoots ?? []), ...(host?.roots ?? [])];
  const clients = distinct([...(host?.clientCertificates ?? []), ...((isHome && options.clientCertificates) || [])]);
  if (extra.length === 0 && clients.length === 0 && options.systemRoots === undefined) return { rejectUnauthorized };
  const roots = await machineRoots(options);
  refuseAmbiguous(clients);
  try {
    const secureContext = tls().createSecureContext({
      ca: [...roots, ...extra],
      cert: clients.map(({ certificate }) => certificate),
      key: clients.map(({ key }) => key),
    });
    return { rejectUnauthorized, secureContext };
  } catch (error) {
    const names = clients.map(({ name }) => name).join(", ") || "root certificates";
    throw new LazyError("USAGE", `${names}: cannot be used for TLS: ${messageOf(error)}`, { cause: error });
  }
}

/** Does something, at once, during which connections that have no settings of their own trust these authorities and no others. */
export function trusting<T>(roots: readonly string[], connect: () => T): T {
  const { getCACertificates, setDefaultCACertificates } = tls();
  const before = getCACertificates("default");
  setDefaultCACertificates(roots);
  try {
    return connect();
  } finally {
    setDefaultCACertificates(before);
  }
}

/** The authorities that are trusted for all hosts, PEM. */
export async function trustedRoots(options: TlsOptions): Promise<string[]> {
  return [...(await machineRoots(options)), ...(options.extraRoots ?? [])];
}

async function machineRoots({ systemRoots }: TlsOptions): Promise<string[]> {
  const { getCACertificates } = tls();
  if (systemRoots === undefined) return getCACertificates("default");
  return [...((await systemRoots()) ?? getCACertificates("bundled")), ...getCACertificates("extra")];
}

function distinct(clients: readonly ClientCertificate[]): ClientCertificate[] {
  return clients.filter(({ certificate }, at) => clients.findIndex((other) => other.certificate === certificate) === at);
}

/** A connection can offer one certificate for each kind of key; of two, OpenSSL would silently use the last. */
function refuseAmbiguous(clients: readonly ClientCertificate[]): void {
  const kinds = new Map<string | undefined, string>();
  for (const { key, name } of clients) {
    const kind = createPrivateKey(key).asymmetricKeyType;
    const other = kinds.get(kind);
    if (other !== undefined) {
      throw new LazyError(
        "USAGE",
        `${other} and ${name}: two client certificates with ${kind} keys for one host; ` +
          `give one, or put each into the certs.d directory of its host`,
      );
    }
    kinds.set(kind, name);
  }
}
