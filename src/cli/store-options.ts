import { Option, type Command } from "commander";
import { z } from "zod";
import { LazyError } from "../errors.ts";
import { openLayoutStore } from "../image-layout/layout-store.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { parseReference, type ImageReference } from "../oci/reference.ts";
import { CredentialFiles } from "../registry/credential-files.ts";
import { FixedCredentials, parseUserPassword, type CredentialSource } from "../registry/credentials.ts";
import { openRegistryStore } from "../registry/registry-store.ts";
import type { Environment } from "./environment.ts";

/** How to reach registries: the options that every command with an image reference has. */
export const storeOptions = z.object({
  username: z.string().optional(),
  password: z.string().optional(),
  plainHttp: z.boolean().optional(),
  insecure: z.boolean().optional(),
});

export type StoreOptions = z.infer<typeof storeOptions>;

export function addStoreOptions(command: Command): void {
  command
    .option("-u, --username <user[:password]>", "credentials for registries, instead of those that docker or podman have stored")
    .option("--password-stdin", "read the password for --username from standard input")
    .option("--plain-http", "talk to registries over HTTP (loopback registries: always)")
    .addOption(new Option("--insecure", "do not verify the certificates of registries"));
}

/** Options as commander parsed them, with the password read where it was promised. */
export async function readStoreOptions(values: unknown, environment: Environment): Promise<StoreOptions> {
  const parsed = storeOptions.extend({ passwordStdin: z.boolean().optional() }).parse(values);
  const { passwordStdin, ...options } = parsed;
  if (passwordStdin !== true) return options;
  if (!options.username || options.username.includes(":")) {
    throw new LazyError("USAGE", "--password-stdin needs --username with a name alone");
  }
  return { ...options, password: await readPassword(environment) };
}

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

function credentials(options: StoreOptions, environment: Environment): CredentialSource {
  const { username, password } = options;
  if (username === undefined) return new CredentialFiles(environment.credentialFiles, { environment: environment.variables });
  return password === undefined ? parseUserPassword(username) : new FixedCredentials(username, password);
}

/** An opened place and what of it is meant. */
export interface OpenedReference {
  readonly store: ImageStore;
  readonly target: ResolveTarget;
  readonly reference: ImageReference;
}

/** Opens the place that a reference names. `create` makes a missing layout directory at the first write. */
export async function openReference(
  text: string,
  options: StoreOptions,
  environment: Environment,
  { create = false, notify }: { create?: boolean; notify?: ((message: string) => void) | undefined } = {},
): Promise<OpenedReference> {
  const reference = parseReference(text);
  const target = { tag: reference.tag, digest: reference.digest };
  if (reference.kind === "layout") return { store: await openLayoutStore(reference.directory, { create }), target, reference };
  const store = openRegistryStore(reference, {
    plainHttp: options.plainHttp,
    tls: { insecure: options.insecure },
    credentials: credentials(options, environment),
    proxy: environment.proxy,
    signal: environment.signal,
    observer: {
      waiting: ({ milliseconds, reason }) =>
        notify?.(`${reference.host}: ${reason}; trying again in ${(milliseconds / 1000).toFixed(1)} s`),
    },
  });
  return { store, target, reference };
}
