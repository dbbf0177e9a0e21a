import { readFile } from "node:fs/promises";
import type { BlobPlace } from "../../device/blob-place.ts";
import type { ImagePlaces, OpeningPlaces } from "../../device/image-config-places.ts";
import { parseServiceConfig } from "../../daemon/config/service-config.ts";
import { openServicePlaces, type ServicePlaces } from "../../daemon/config/service-places.ts";
import { parseBlobUrl } from "../../registry/blob-url.ts";
import { readSystemRoots } from "../../registry/certificate-files.ts";
import { CredentialFiles } from "../../registry/credential-files.ts";
import { openRegistryStore } from "../../registry/registry-store.ts";
import type { Environment } from "../environment.ts";
import { DEFAULT_SERVICE_CONFIG, openFailure } from "./tool.ts";

/** Where an image's layers come from that are not local. */
export interface RemotePlaces {
  readonly places: OpeningPlaces;
  readonly close: () => Promise<void>;
}

/**
 * Opens where layers come from: as the service's configuration says, if there is one, otherwise with the credentials of docker and
 * podman. The configuration is not looked at for an image that names no repository.
 */
export async function openImagePlaces(
  repoBlobUrl: string,
  servicePath: string | undefined,
  environment: Environment,
): Promise<RemotePlaces> {
  const service = repoBlobUrl === "" ? undefined : await openService(servicePath, environment);
  const notice = (message: string): void => void environment.stderr.write(`${message}\n`);
  const own: ImagePlaces = {
    openRemote: async (url) => openWithoutService(url, environment),
    cache: undefined,
    gzipCache: undefined,
    notice,
  };
  const from = service ?? own;
  let remote: Promise<BlobPlace> | undefined;
  return {
    places: {
      ...from,
      repoBlobUrl: repoBlobUrl.replace(/\/$/, ""),
      remote: async () => await (remote ??= from.openRemote(repoBlobUrl)),
      fetched: { requests: 0, bytes: 0 },
    },
    close: async () => await service?.close(),
  };
}

async function openService(servicePath: string | undefined, environment: Environment): Promise<ServicePlaces | undefined> {
  const path = servicePath ?? DEFAULT_SERVICE_CONFIG;
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (servicePath === undefined && error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw openFailure(path, error);
  }
  const notice = (message: string): void => void environment.stderr.write(`${path}: ${message}\n`);
  const { config } = parseServiceConfig(text, path);
  return await openServicePlaces(config, { ...environment, notice });
}

function openWithoutService(repoBlobUrl: string, { credentialFiles, variables, systemRoots, proxy, signal }: Environment): BlobPlace {
  const { reference, plainHttp } = parseBlobUrl(repoBlobUrl);
  return openRegistryStore(reference, {
    plainHttp,
    credentials: new CredentialFiles(credentialFiles, { environment: variables }),
    tls: { systemRoots: async () => await readSystemRoots(systemRoots) },
    proxy,
    signal,
  });
}
