import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { FileSource } from "../../bytes/file.ts";
import { LazyError, messageOf } from "../../errors.ts";
import type { Digest } from "../../oci/digest.ts";
import { parseJsonObject } from "../../oci/json.ts";
import { readClientCertificate, readSystemRoots } from "../../registry/certificate-files.ts";
import type { RegistryOptions } from "../../registry/client.ts";
import { CredentialFiles } from "../../registry/credential-files.ts";
import { openRegistryStore } from "../../registry/registry-store.ts";
import type { TlsOptions } from "../../registry/tls.ts";
import type { Environment } from "../environment.ts";
import { existingFile, wholeNumber } from "./tool.ts";

/** The options of tools that upload what they make. */
export interface UploadOptions {
  readonly upload: string;
  readonly upload_bs: number;
  readonly cred_file_path?: string;
  readonly tls_key_path?: string;
  readonly tls_cert_path?: string;
}

const MAX_UPLOAD_KIB = 2 ** 32;

export function addUploadOptions(program: Command): void {
  program
    .option("--upload <url>", "upload the layer as well: https://HOST/v2/REPOSITORY/blobs/uploads", "")
    .option("--upload_bs <KiB>", "size of the pieces that are uploaded", wholeNumber, 262_144)
    .option("--cred_file_path <file>", "credentials for the upload, as docker stores them", existingFile)
    .option("--tls_key_path <file>", "key of the client certificate, PEM", existingFile)
    .option("--tls_cert_path <file>", "client certificate, PEM", existingFile);
}

/** Where a layer is uploaded to. */
export interface UploadPlace {
  readonly host: string;
  readonly repository: string;
  readonly registry: RegistryOptions;
}

/** Reads all that an upload needs, so that what is missing is said before anything is made. Undefined: nothing is to be uploaded. */
export async function prepareUpload(options: UploadOptions, environment: Environment): Promise<UploadPlace | undefined> {
  if (options.upload === "") return undefined;
  const url = parseUrl(options.upload);
  const repository = /^\/v2\/([^?#]+)\/blobs\/uploads\/?$/.exec(url?.pathname ?? "")?.[1];
  if (url === undefined || repository === undefined)
    throw new LazyError("USAGE", `--upload ${options.upload}: expected a URL like https://HOST/v2/REPOSITORY/blobs/uploads`);
  if (options.upload_bs < 1 || options.upload_bs > MAX_UPLOAD_KIB)
    throw new LazyError("USAGE", `--upload_bs ${options.upload_bs}: expected 1 to ${MAX_UPLOAD_KIB} KiB`);
  const { cred_file_path } = options;
  if (cred_file_path !== undefined) await checkCredentialFile(cred_file_path);
  const registry: RegistryOptions = {
    plainHttp: url.protocol === "http:",
    tls: await tlsOptions(options, environment),
    credentials: cred_file_path === undefined ? undefined : new CredentialFiles([cred_file_path], { environment: environment.variables }),
    proxy: environment.proxy,
    uploadChunkBytes: options.upload_bs * 1024,
    signal: environment.signal,
  };
  return { host: url.host, repository, registry };
}

/**
 * Uploads a file that a tool has made, which has this digest. When that fails the file stays, and the error says so; `again` is what to
 * run then.
 */
export async function uploadFile(path: string, digest: Digest, again: string, { host, repository, registry }: UploadPlace): Promise<void> {
  const store = openRegistryStore({ kind: "registry", host, repository }, registry);
  const content = await FileSource.open(path);
  try {
    await store.putBlob({ mediaType: "application/octet-stream", digest, size: content.size }, content, { isHashed: true });
  } catch (error) {
    if (!(error instanceof LazyError)) throw error;
    const kept = `${path} is complete, ${digest}, and stays; upload it as that, or run ${again}`;
    throw new LazyError(error.code, `failed to upload: ${error.message}; ${kept}`, { cause: error });
  } finally {
    await content.close();
    await store.close();
  }
}

function parseUrl(text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url?.protocol === "http:" || url?.protocol === "https:" ? url : undefined;
}

async function checkCredentialFile(path: string): Promise<void> {
  try {
    parseJsonObject(await readFile(path), path);
  } catch (error) {
    throw new LazyError("USAGE", `failed to read upload cred file: ${messageOf(error)}`, { cause: error });
  }
}

async function tlsOptions({ tls_cert_path, tls_key_path }: UploadOptions, environment: Environment): Promise<TlsOptions> {
  if ((tls_cert_path === undefined) !== (tls_key_path === undefined))
    throw new LazyError("USAGE", "--tls_cert_path and --tls_key_path belong together; give both or none");
  return {
    clientCertificates:
      tls_cert_path === undefined || tls_key_path === undefined ? [] : [await readClientCertificate(tls_cert_path, tls_key_path)],
    systemRoots: async () => await readSystemRoots(environment.systemRoots),
  };
}
