import { readFile } from "node:fs/promises";
import { LazyError, messageOf } from "../errors.ts";
import { optionalString, optionalStringMap, parseJsonObject, requireObject, type JsonObject } from "../oci/json.ts";
import { DOCKER_HUB_HOST } from "../oci/reference.ts";
import { askHelper, type HelperOptions } from "./credential-helper.ts";
import type { Credential, CredentialSource } from "./credentials.ts";

const DOCKER_HUB_KEY = "https://index.docker.io/v1/";
const MAX_FILE_BYTES = 1 << 20;

/**
 * Docker's `config.json` and containers' `auth.json`, in the order given; files that do not exist are skipped.
 * In each: the helper named for the host, then the store for all hosts, then the `auths` entry with the longest matching key.
 * Files are read again at each question, so a new login is seen by a running process.
 */
export class CredentialFiles implements CredentialSource {
  readonly #paths: readonly string[];
  readonly #helpers: HelperOptions;

  constructor(paths: readonly string[], helpers: HelperOptions) {
    this.#paths = paths;
    this.#helpers = helpers;
  }

  async credentialFor(host: string, repository: string): Promise<Credential | undefined> {
    for (const path of this.#paths) {
      const file = await readCredentialFile(path);
      const credential = file && ((await this.#fromHelpers(file, host, path)) ?? findAuth(file, host, repository, path));
      if (credential) return credential;
    }
    return undefined;
  }

  async #fromHelpers(file: JsonObject, host: string, path: string): Promise<Credential | undefined> {
    const named = optionalStringMap(file, "credHelpers", path) ?? {};
    const own = hostKeys(host).find((key) => Object.hasOwn(named, key));
    const helper = own === undefined ? optionalString(file, "credsStore", path) : named[own];
    if (!helper) return undefined;
    return await askHelper(helper, own ?? (host === DOCKER_HUB_HOST ? DOCKER_HUB_KEY : host), this.#helpers);
  }
}

/** Undefined for one that does not exist. Throws `DENIED` or `USAGE`, which repeat nothing of it. */
export async function readCredentialFile(path: string): Promise<JsonObject | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new LazyError("DENIED", `${path}: credentials cannot be read: ${messageOf(error)}`, { cause: error });
  }
  if (bytes.length > MAX_FILE_BYTES) throw new LazyError("USAGE", `${path}: ${bytes.length} bytes, expected at most ${MAX_FILE_BYTES}`);
  try {
    return parseJsonObject(bytes, path);
  } catch (error) {
    throw new LazyError("USAGE", `${messageOf(error)}; correct the file or log in again`, { cause: error });
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
}

/**
 * The entry of `auths` with the longest matching key. Keys name a host, or a host and the start of a repository; Docker wrote them
 * as URLs in its early days. `path` says where it is from.
 */
export function findAuth(file: JsonObject, host: string, repository: string, path: string): Credential | undefined {
  if (file["auths"] === undefined || file["auths"] === null) return undefined;
  const auths = requireObject(file["auths"], `${path}: auths`);
  const names = hostKeys(host).flatMap((name) => [name, `${name}/${repository}`]);
  let best: { length: number; credential: Credential } | undefined;
  for (const [key, value] of Object.entries(auths)) {
    const length = matchLength(key, names);
    if (length <= (best?.length ?? 0)) continue;
    const credential = parseAuth(requireObject(value, `${path}: auths`), path);
    if (credential) best = { length, credential };
  }
  return best?.credential;
}

function hostKeys(host: string): string[] {
  return host === DOCKER_HUB_HOST ? [host, "docker.io", "index.docker.io", DOCKER_HUB_KEY] : [host];
}

/** How much of a repository's name the key covers, in whole path parts; 0 if it is about something else. */
function matchLength(key: string, names: readonly string[]): number {
  const name = key.replace(/^https?:\/\//, "").replace(/\/(?:v[12]\/?)?$/, "");
  return names.some((other) => other === key || other === name || other.startsWith(`${name}/`)) ? name.length : 0;
}

function parseAuth(auth: JsonObject, path: string): Credential | undefined {
  const where = `${path}: auths`;
  const token = optionalString(auth, "identitytoken", where);
  if (token) return { kind: "identity-token", token };
  const text = Buffer.from(optionalString(auth, "auth", where) ?? "", "base64").toString();
  const colon = text.indexOf(":");
  // Some tools pad the decoded text with NULs.
  if (colon > 0) return { kind: "basic", username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
  const username = optionalString(auth, "username", where);
  const password = optionalString(auth, "password", where);
  return username && password ? { kind: "basic", username, password } : undefined;
}
