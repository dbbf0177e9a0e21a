import { join, resolve } from "node:path";
import { Option, type Command } from "commander";
import { z } from "zod";
import { LazyError } from "../errors.ts";
import { openArchiveFile, openArchiveStream } from "../image-archive/archive-store.ts";
import { openFileTarget, sinkTarget } from "../image-archive/archive-target.ts";
import { createArchive } from "../image-archive/written-archive.ts";
import { openLayoutStore } from "../image-layout/layout-store.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { parseReference, type ArchiveReference, type ImageReference, type RegistryReference } from "../oci/reference.ts";
import { readCertificateDirectory, readClientCertificate, readRootFile, readSystemRoots } from "../registry/certificate-files.ts";
import type { RegistryOptions } from "../registry/client.ts";
import { openConfiguredStore } from "../registry/configured-store.ts";
import { CredentialFiles } from "../registry/credential-files.ts";
import { FixedCredentials, parseUserPassword, type CredentialSource } from "../registry/credentials.ts";
import { HostDirectories } from "../registry/host-directories.ts";
import { timeoutsOf } from "../registry/timeouts.ts";
import type { ClientCertificate, TlsOptions } from "../registry/tls.ts";
import { UploadDirectory } from "../registry/upload-journal.ts";
import type { Environment } from "./environment.ts";
import { absoluteReference } from "./reference-name.ts";
import { standardOutputSink, takeStandardInput } from "./standard-streams.ts";

/** How to reach registries: the options that every command with an image reference has. */
export const storeOptions = z.object({
  username: z.string().optional(),
  password: z.string().optional(),
  plainHttp: z.boolean().optional(),
  insecure: z.boolean().optional(),
  certDir: z.array(z.string()).optional(),
  rootCa: z.array(z.string()).optional(),
  clientCert: z.array(z.strictObject({ certificate: z.string(), key: z.string() })).optional(),
  hostsDir: z.array(z.string()).optional(),
  tokenService: z.array(z.string()).optional(),
  retry: z.int().optional(),
  timeoutSeconds: z.int().optional(),
  dataRepository: z.string().optional(),
});

export type StoreOptions = z.infer<typeof storeOptions>;

export function addStoreOptions(command: Command): void {
  command
    .option("-u, --username <user[:password]>", "credentials for registries, instead of those that docker or podman have stored")
    .option("--password-stdin", "read the password for --username from standard input")
    .option("--plain-http", "talk to registries over HTTP (loopback registries: always)")
    .addOption(
      new Option("--hosts-dir <directory>", "certs.d directories, instead of containerd's, docker's and podman's (repeatable)").argParser(
        collectPath,
      ),
    )
    .addOption(
      new Option("--token-service <host>", "a token service in another domain than its registry that may get credentials").argParser(
        collect,
      ),
    );
  addTlsOptions(command);
}

/** What connections are secured with: the same options in every command, also in the drop-in. */
export function addTlsOptions(command: Command): void {
  command
    .addOption(
      new Option("--cert-dir <directory>", "trust its *.crt, show its NAME.cert with NAME.key (repeatable)").argParser(collectPath),
    )
    .addOption(new Option("--root-ca <file>", "trust these certificates as well, PEM (repeatable)").argParser(collectPath))
    .addOption(
      new Option("--client-cert <cert:key>", "show this certificate to the registry, PEM (repeatable)").argParser(collectClientCertificate),
    )
    .option("--insecure", "do not verify the certificates of registries");
}

function collect(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}

/** Made absolute at once: a process that serves a mount runs elsewhere. */
function collectPath(text: string, before: readonly string[] = []): string[] {
  return [...before, resolve(text)];
}

interface ClientCertificatePaths {
  readonly certificate: string;
  readonly key: string;
}

function collectClientCertificate(text: string, before: readonly ClientCertificatePaths[] = []): ClientCertificatePaths[] {
  const [certificate, key, ...rest] = text.split(":");
  if (!certificate || !key || rest.length > 0) {
    throw new LazyError("USAGE", `--client-cert ${text}: expected CERT:KEY, two files with exactly one colon between them`);
  }
  return [...before, { certificate: resolve(certificate), key: resolve(key) }];
}

/**
 * Options as commander parsed them, with the password read where it was promised. Throws `USAGE` if one of the references needs
 * standard input too.
 */
export async function readStoreOptions(
  values: unknown,
  environment: Environment,
  references: readonly string[] = [],
): Promise<StoreOptions> {
  const parsed = storeOptions.extend({ passwordStdin: z.boolean().optional() }).parse(values);
  const { passwordStdin, ...options } = parsed;
  if (passwordStdin !== true) return options;
  if (references.includes("-")) throw new LazyError("USAGE", `--password-stdin: ${BOTH_ON_STDIN}`);
  if (!options.username || options.username.includes(":")) {
    throw new LazyError("USAGE", "--password-stdin needs --username with a name alone");
  }
  return { ...options, password: await readPassword(environment) };
}

const BOTH_ON_STDIN = "standard input cannot be an image and the password; put one of them into a file";
const MAX_PASSWORD_BYTES = 64 * 1024; // tokens can be long

async function readPassword(environment: Environment): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of environment.stdin) {
    bytes += chunk.length;
    if (bytes > MAX_PASSWORD_BYTES)
      throw new LazyError("USAGE", `the password on standard input is longer than ${MAX_PASSWORD_BYTES} bytes`);
    chunks.push(chunk);
  }
  const password = Buffer.concat(chunks)
    .toString("utf8")
    .replace(/\r?\n$/, "");
  if (password === "") throw new LazyError("USAGE", "--password-stdin: standard input is empty");
  return password;
}

function givenCredentials({ username, password }: StoreOptions): CredentialSource | undefined {
  if (username === undefined) return undefined;
  return password === undefined ? parseUserPassword(username) : new FixedCredentials(username, password);
}

/** Options of commands that read a converted image: those of stores, and where its data is. */
export function addReadOptions(command: Command): void {
  command.addOption(
    new Option(
      "--data-repository <place>",
      "a turboOCI image's data: the repository or oci:DIRECTORY with the layers of the image that it was made from (default: where it is itself)",
    ).argParser(absoluteReference),
  );
  addStoreOptions(command);
}

/** A place that is opened, and the one where the data of its turboOCI images is, if that is another. */
export interface ReadPlaces {
  readonly store: ImageStore;
  readonly target: ResolveTarget;
  readonly dataPlace: ImageStore | undefined;
  readonly close: () => Promise<void>;
}

/** Opens what a converted image is read from. */
export async function openReadPlaces(
  text: string,
  values: unknown,
  environment: Environment,
  opening: Pick<OpenOptions, "patience"> = {},
): Promise<ReadPlaces> {
  const options = await readStoreOptions(values, environment);
  const { store, target } = await openReference(text, options, environment, opening);
  try {
    const { dataRepository } = options;
    const dataPlace = dataRepository === undefined ? undefined : (await openReference(dataRepository, options, environment, opening)).store;
    const close = async (): Promise<void> => void (await Promise.all([store.close(), dataPlace?.close()]));
    return { store, target, dataPlace, close };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** An opened place and what of it is meant. */
export interface OpenedReference {
  readonly store: ImageStore;
  readonly target: ResolveTarget;
  readonly reference: ImageReference;
  /** The image goes to standard output: nothing else may be written there. */
  readonly usesStdout: boolean;
}

export interface OpenOptions {
  /** For writing: makes a missing layout directory at the first write, and archives when an image gets its tag. */
  readonly create?: boolean;
  readonly notify?: ((message: string) => void) | undefined;
  /** How long a registry is waited for, where the options do not say. */
  readonly patience?: Pick<RegistryOptions, "readBudgetMs" | "timeouts"> | undefined;
}

/** Opens the place that a reference names. An archive that is written without a tag gets `latest`. */
export async function openReference(
  text: string,
  options: StoreOptions,
  environment: Environment,
  { create = false, notify, patience }: OpenOptions = {},
): Promise<OpenedReference> {
  const reference = parseReference(text);
  const { tag, digest } = reference;
  const opened = { target: { tag, digest }, reference, usesStdout: false };
  if (reference.kind === "registry") return { ...opened, store: await openRegistry(reference, options, environment, { notify, patience }) };
  if (reference.kind === "layout") return { ...opened, store: await openLayoutStore(reference.directory, { create }) };
  if (!create) {
    const store = reference.kind === "stream" ? await readStdin(options, environment) : await readArchive(reference, environment);
    return { ...opened, store };
  }
  const usesStdout = reference.kind === "stream";
  const store = usesStdout ? await writeStdout(environment) : await writeArchive(reference, environment);
  return { store, target: { tag: tag ?? "latest", digest }, reference, usesStdout };
}

async function readArchive({ kind, file, repository }: ArchiveReference, environment: Environment): Promise<ImageStore> {
  const { temporaryDirectory, signal } = environment;
  return await openArchiveFile(file, { format: kind === "oci-archive" ? "oci" : "docker", repository, temporaryDirectory, signal });
}

async function writeArchive({ kind, file, repository }: ArchiveReference, { signal }: Environment): Promise<ImageStore> {
  return await createArchive(await openFileTarget(file), { format: kind === "oci-archive" ? "oci" : "docker", repository, signal });
}

async function readStdin(options: StoreOptions, environment: Environment): Promise<ImageStore> {
  const { temporaryDirectory, signal } = environment;
  if (options.password !== undefined) throw new LazyError("USAGE", `- : ${BOTH_ON_STDIN}`);
  return await openArchiveStream(takeStandardInput(environment), "standard input", { temporaryDirectory, signal });
}

async function writeStdout(environment: Environment): Promise<ImageStore> {
  const target = sinkTarget(standardOutputSink(environment), "standard output", environment.temporaryDirectory);
  return await createArchive(target, { format: "oci", signal: environment.signal });
}

async function openRegistry(
  reference: RegistryReference,
  options: StoreOptions,
  environment: Environment,
  { notify, patience }: OpenOptions,
): Promise<ImageStore> {
  const stored = new CredentialFiles(environment.credentialFiles, { environment: environment.variables });
  return await openConfiguredStore(reference, {
    plainHttp: options.plainHttp,
    tls: await tlsOptions(options, environment),
    hosts: new HostDirectories(options.hostsDir ?? environment.registryHosts),
    credentials: givenCredentials(options) ?? stored,
    mirrorCredentials: stored,
    tokenServices: options.tokenService,
    proxy: environment.proxy,
    ...patience,
    ...givenPatience(options),
    uploads: new UploadDirectory(join(environment.cacheDirectory, "uploads"), { now: () => Date.now(), notice: notify }),
    signal: environment.signal,
    notice: (message) => notify?.(message),
    observer: {
      waiting: ({ milliseconds, reason }) =>
        notify?.(`${reference.host}: ${reason}; trying again in ${(milliseconds / 1000).toFixed(1)} s`),
    },
  });
}

/** How often and how long a registry is waited for, as far as the options say. */
function givenPatience({ retry, timeoutSeconds }: StoreOptions): Pick<RegistryOptions, "retry" | "timeouts"> {
  return {
    ...(retry !== undefined && { retry: { tries: retry + 1 } }),
    ...(timeoutSeconds !== undefined && { timeouts: timeoutsOf(timeoutSeconds * 1000) }),
  };
}

/** Reads what the options name, so that a missing file is said before anything is sent. */
async function tlsOptions(options: StoreOptions, environment: Environment): Promise<TlsOptions> {
  const extraRoots: string[] = [];
  const clientCertificates: ClientCertificate[] = [];
  for (const directory of options.certDir ?? []) {
    const found = await readCertificateDirectory(directory);
    extraRoots.push(...found.roots);
    clientCertificates.push(...found.clientCertificates);
  }
  for (const path of options.rootCa ?? []) extraRoots.push(await readRootFile(path));
  for (const { certificate, key } of options.clientCert ?? []) clientCertificates.push(await readClientCertificate(certificate, key));
  const systemRoots = async (): Promise<readonly string[] | undefined> => await readSystemRoots(environment.systemRoots);
  return { insecure: options.insecure, extraRoots, clientCertificates, systemRoots };
}
