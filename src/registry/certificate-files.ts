import { createPrivateKey, X509Certificate } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { LazyError, messageOf } from "../errors.ts";
import type { ClientCertificate, HostTls } from "./tls.ts";

const MAX_FILE_BYTES = 8 << 20;
/** Where distributions keep the authorities that the machine trusts, in one file; the first that exists counts. */
const SYSTEM_FILES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** As `SSL_CERT_FILE` and `SSL_CERT_DIR` say. The file stands in for the machine's own; the directories come in addition. */
export interface SystemRootPlaces {
  readonly file?: string | undefined;
  /** Separated by colons. */
  readonly directories?: string | undefined;
}

/** The authorities that the machine trusts, PEM; undefined if it has none, e.g. in a bare container. */
export async function readSystemRoots(places: SystemRootPlaces): Promise<readonly string[] | undefined> {
  const file = places.file ? await readText(places.file) : await readFirst(SYSTEM_FILES);
  // Such directories hold each certificate under several names.
  const roots = new Set(file === undefined ? [] : [file]);
  for (const directory of (places.directories ?? "").split(":").filter(Boolean)) {
    for (const text of await readCertificatesIn(directory)) roots.add(text);
  }
  return roots.size === 0 ? undefined : [...roots];
}

async function readFirst(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const text = await readIfPresent(path);
    if (text !== undefined) return text;
  }
  return undefined;
}

/** Whatever is no certificate is passed over, and so is a directory that does not exist: the variable is for all programs. */
async function readCertificatesIn(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readNames(directory).catch(() => [])) {
    const path = join(directory, name);
    const isFile = await stat(path).then(
      (entry) => entry.isFile(),
      () => false,
    );
    const text = isFile ? await readIfPresent(path) : undefined;
    if (text?.includes("-----BEGIN CERTIFICATE-----")) found.push(text);
  }
  return found;
}

/** The certificates of a PEM file. Throws `NOT_FOUND`, `DENIED`, or `USAGE` if none is in it. */
export async function readRootFile(path: string): Promise<string> {
  const text = await readText(path);
  checkCertificate(text, path);
  return text;
}

/** Reads a pair and checks that they belong together. */
export async function readClientCertificate(certificatePath: string, keyPath: string): Promise<ClientCertificate> {
  const certificate = await readText(certificatePath);
  const key = await readText(keyPath);
  const parsed = checkCertificate(certificate, certificatePath);
  if (!parsed.checkPrivateKey(parseKey(key, keyPath))) {
    throw new LazyError("USAGE", `${keyPath}: is not the key of the certificate ${certificatePath}`);
  }
  return { certificate, key, name: certificatePath };
}

/**
 * A directory as docker has them for each registry: `*.crt` are authorities, `NAME.cert` with `NAME.key` are a client's.
 * Throws `NOT_FOUND` if it is missing.
 */
export async function readCertificateDirectory(directory: string): Promise<HostTls> {
  const names = await readNames(directory);
  const roots: string[] = [];
  const clientCertificates: ClientCertificate[] = [];
  for (const name of names) {
    const path = join(directory, name);
    if (name.endsWith(".crt")) roots.push(await readRootFile(path));
    if (!name.endsWith(".cert")) continue;
    const key = `${basename(name, ".cert")}.key`;
    if (!names.includes(key)) throw new LazyError("NOT_FOUND", `${path}: a client certificate, but there is no ${key} beside it`);
    clientCertificates.push(await readClientCertificate(path, join(directory, key)));
  }
  return { roots, clientCertificates, insecure: false };
}

function checkCertificate(text: string, path: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch (error) {
    throw new LazyError("USAGE", `${path}: holds no usable certificate in PEM form: ${messageOf(error)}`, { cause: error });
  }
}

function parseKey(text: string, path: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(text);
  } catch {
    // The library's message could quote what it did not understand.
    throw new LazyError("USAGE", `${path}: holds no usable private key in PEM form, without a passphrase`);
  }
}

async function readNames(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).toSorted();
  } catch (error) {
    throw fileError(directory, error);
  }
}

async function readText(path: string): Promise<string> {
  try {
    const bytes = await readFile(path);
    if (bytes.length <= MAX_FILE_BYTES) return bytes.toString("latin1");
  } catch (error) {
    throw fileError(path, error);
  }
  throw new LazyError("USAGE", `${path}: is longer than ${MAX_FILE_BYTES} bytes, expected certificates or a key`);
}

/** Undefined if the file does not exist. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readText(path);
  } catch (error) {
    if (error instanceof LazyError && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

function fileError(path: string, error: unknown): LazyError {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") return new LazyError("NOT_FOUND", `${path}: does not exist`, { cause: error });
  if (code === "ENOTDIR") return new LazyError("NOT_FOUND", `${path}: is not a directory, or not in one`, { cause: error });
  const kind = code === "EACCES" || code === "EPERM" ? "DENIED" : "UNAVAILABLE";
  return new LazyError(kind, `${path}: cannot be read: ${messageOf(error)}`, { cause: error });
}
