import { isAbsolute, join } from "node:path";
import { DOCKER_HUB_HOST } from "../oci/reference.ts";
import { readCertificateDirectory, readClientCertificate, readIfPresent, readRootFile } from "./certificate-files.ts";
import { LazyError } from "../errors.ts";
import { parseHostsToml, type Capability, type HostEntry } from "./hosts-toml.ts";
import type { ClientCertificate, HostTls } from "./tls.ts";

const HOSTS_FILE = "hosts.toml";
const NOTHING: HostTls = { roots: [], clientCertificates: [], insecure: false };

/** A place that serves a registry's content, ready to be connected to. */
export interface RegistryPlace {
  readonly url: URL;
  readonly capabilities: ReadonlySet<Capability>;
  readonly tls: HostTls;
  readonly headers: Readonly<Record<string, string>>;
}

export interface RegistryPlaces {
  /** Its address is undefined if the configuration does not say where the registry is. */
  readonly server: Omit<RegistryPlace, "url"> & { readonly url: URL | undefined };
  /** In the order in which they are to be asked. */
  readonly mirrors: readonly RegistryPlace[];
}

/**
 * Directories with one directory for each registry: docker's, with certificates in it (`ca.crt`, `client.cert`, `client.key`),
 * and containerd's, with a `hosts.toml` that may name mirrors. Directories that do not exist are passed over.
 */
export class HostDirectories {
  readonly #directories: readonly string[];

  constructor(directories: readonly string[]) {
    this.#directories = directories;
  }

  /** What is configured for a registry (`host[:port]`); undefined if no `hosts.toml` is about it, nor a `_default` one. */
  async placesFor(host: string): Promise<RegistryPlaces | undefined> {
    for (const name of [...directoryNames(host), "_default"]) {
      for (const directory of this.#directories) {
        const places = await readPlaces(join(directory, name));
        if (places) return places;
      }
    }
    return undefined;
  }

  /** What connections to a host need. A directory's own certificates count where no `hosts.toml` says which are for whom. */
  async tlsFor(host: string): Promise<HostTls> {
    let found = NOTHING;
    for (const name of directoryNames(host)) {
      for (const directory of this.#directories) {
        const places = await readPlaces(join(directory, name));
        const isAboutHost = places?.server.url === undefined || places.server.url.host === host;
        if (places && isAboutHost) found = joinTls(found, places.server.tls);
        else if (!places) found = joinTls(found, await readIfDirectory(join(directory, name)));
      }
    }
    return found;
  }
}

export function joinTls(one: HostTls, other: HostTls): HostTls {
  return {
    roots: [...one.roots, ...other.roots],
    clientCertificates: [...one.clientCertificates, ...other.clientCertificates],
    insecure: one.insecure || other.insecure,
  };
}

/** How the directory of a host may be called. */
function directoryNames(host: string): string[] {
  const port = /^(.+):(\d+)$/.exec(host);
  const names = port ? [`${port[1]}_${port[2]}_`, host] : [host, `${host}:443`];
  return host === DOCKER_HUB_HOST ? ["docker.io", ...names] : names;
}

async function readPlaces(directory: string): Promise<RegistryPlaces | undefined> {
  const path = join(directory, HOSTS_FILE);
  const text = await readIfPresent(path);
  if (text === undefined) return undefined;
  const { server, own, mirrors } = parseHostsToml(Buffer.from(text, "latin1").toString("utf8"), path);
  return {
    server: { url: server, capabilities: own.capabilities, headers: own.headers, tls: await readTls(own, directory) },
    mirrors: await Promise.all(
      mirrors.map(async (entry) => ({
        url: entry.url,
        capabilities: entry.capabilities,
        headers: entry.headers,
        tls: await readTls(entry, directory),
      })),
    ),
  };
}

async function readTls(entry: Omit<HostEntry, "url">, directory: string): Promise<HostTls> {
  const at = (path: string): string => (isAbsolute(path) ? path : join(directory, path));
  const roots: string[] = [];
  for (const path of entry.roots) roots.push(await readRootFile(at(path)));
  const clientCertificates: ClientCertificate[] = [];
  for (const { certificate, key } of entry.clients) {
    clientCertificates.push(await readClientCertificate(at(certificate), at(key ?? certificate)));
  }
  return { roots, clientCertificates, insecure: entry.insecure };
}

async function readIfDirectory(directory: string): Promise<HostTls> {
  try {
    return await readCertificateDirectory(directory);
  } catch (error) {
    if (error instanceof LazyError && error.code === "NOT_FOUND" && error.message.startsWith(`${directory}: `)) return NOTHING;
    throw error;
  }
}
