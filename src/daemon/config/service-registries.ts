import type { Eviction } from "../../cache/segment-pool.ts";
import type { ImagePlaces } from "../../device/image-config-places.ts";
import type { ImageStore } from "../../oci/image-store.ts";
import { Accelerator } from "../../registry/accelerator.ts";
import { parseBlobUrl } from "../../registry/blob-url.ts";
import { readClientCertificate, readSystemRoots, type SystemRootPlaces } from "../../registry/certificate-files.ts";
import { openConfiguredStore, type ConfiguredOptions } from "../../registry/configured-store.ts";
import type { ProxyOptions } from "../../registry/connections.ts";
import { CredentialFile } from "../../registry/credential-file.ts";
import { CredentialFiles } from "../../registry/credential-files.ts";
import { CredentialService } from "../../registry/credential-services.ts";
import type { CredentialSource } from "../../registry/credentials.ts";
import { HostDirectories } from "../../registry/host-directories.ts";
import { BLOCK_READ_PATIENCE } from "../../registry/timeouts.ts";
import type { ServiceConfig } from "./service-config.ts";

/** What a service knows of the machine, besides its configuration. */
export interface ServiceMachine extends Pick<ImagePlaces, "findDataExtents" | "notice"> {
  /** Docker's and containers' files, for credential mode `docker` without a path. */
  readonly credentialFiles: readonly string[];
  /** All variables, for credential helpers alone. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** `certs.d` directories, which say how registries are reached. */
  readonly registryHosts: readonly string[];
  readonly systemRoots: SystemRootPlaces;
  readonly proxy: ProxyOptions;
  /** Told what the caches drop. */
  readonly onEviction?: ((eviction: Eviction) => void) | undefined;
  /** Ends whatever is under way. */
  readonly signal: AbortSignal;
}

/** Repositories that images name: each is opened once, and then kept. */
export interface ServiceRegistries {
  open(repoBlobUrl: string): Promise<ImageStore>;
  close(): Promise<void>;
}

/** What it takes to reach registries: credentials, certificates, mirrors, the peer-to-peer proxy. */
export async function openServiceRegistries(config: ServiceConfig, machine: ServiceMachine): Promise<ServiceRegistries> {
  const { p2pConfig, userAgent } = config;
  const { notice } = machine;
  const accelerator = p2pConfig.enable ? new Accelerator(new URL(p2pConfig.address), { userAgent, notice }) : undefined;
  const options = await registryOptions(config, machine, accelerator);
  const stores = new Map<string, Promise<ImageStore>>();
  return {
    open: async (repoBlobUrl) => {
      const { reference, plainHttp } = parseBlobUrl(repoBlobUrl);
      const key = `${plainHttp ? "http" : "https"}://${reference.host}/${reference.repository}`;
      const store = stores.get(key) ?? openConfiguredStore(reference, { ...options, plainHttp });
      stores.set(key, store);
      store.catch(() => stores.delete(key));
      return await store;
    },
    close: async () => {
      const opened = await Promise.allSettled(stores.values());
      for (const result of opened) if (result.status === "fulfilled") await result.value.close();
      await accelerator?.close();
    },
  };
}

async function registryOptions(
  { certConfig: { certFile, keyFile }, credentialConfig, lazylayer, userAgent }: ServiceConfig,
  machine: ServiceMachine,
  accelerator: Accelerator | undefined,
): Promise<ConfiguredOptions> {
  const { notice, proxy, registryHosts, signal, systemRoots } = machine;
  const credentials = credentialSource(credentialConfig, machine);
  return {
    ...BLOCK_READ_PATIENCE,
    hosts: new HostDirectories(registryHosts),
    tls: {
      clientCertificates: certFile === "" ? [] : [await readClientCertificate(certFile, keyFile)],
      systemRoots: async () => await readSystemRoots(systemRoots),
    },
    credentials,
    mirrorCredentials: credentials,
    tokenServices: lazylayer.tokenServices,
    accelerator,
    proxy,
    userAgent,
    signal,
    notice,
    observer: { waiting: ({ milliseconds, reason }) => notice(`${reason}; trying again in ${(milliseconds / 1000).toFixed(1)} s`) },
  };
}

/** Undefined: registries are asked without credentials. */
function credentialSource(config: ServiceConfig["credentialConfig"], machine: ServiceMachine): CredentialSource | undefined {
  const { mode, path } = config;
  const { credentialFiles, notice, variables } = machine;
  if (mode === "docker") return new CredentialFiles(path === "" ? credentialFiles : [path], { environment: variables });
  if (path === "" || mode === "") return undefined;
  const options = { timeoutMs: config.timeout * 1000, notice };
  switch (mode) {
    case "file":
      return new CredentialFile(path, notice);
    case "http":
      return new CredentialService({ kind: mode, url: path }, options);
    case "uds":
      return new CredentialService({ kind: mode, socketPath: path }, options);
    case "https": {
      const serverAuthorityPath = config.server_ca_path || undefined;
      const certificatePath = config.client_cert_path || undefined;
      const keyPath = config.client_key_path || undefined;
      return new CredentialService({ kind: mode, url: path, serverAuthorityPath, certificatePath, keyPath }, options);
    }
  }
}
