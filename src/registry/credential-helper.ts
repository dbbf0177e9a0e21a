import { spawn } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { LazyError } from "../errors.ts";
import { optionalString, parseJsonObject } from "../oci/json.ts";
import type { Credential } from "./credentials.ts";

const NAME = /^[A-Za-z0-9._-]+$/;
const MAX_OUTPUT_BYTES = 64 << 10;
/** What helpers print, with a failing status, when they simply have nothing. */
const NOTHING_STORED = /credentials not found|no credentials|not found in (?:native )?(?:store|keychain)/i;
/** The user name that marks the secret as an identity token. */
const TOKEN_USER = "<token>";

export interface HelperOptions {
  /** The environment of the helper; its `PATH` says where helpers are looked for. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly timeoutMs?: number;
}

/**
 * Asks `docker-credential-NAME get` for a server's credential; undefined if it has none.
 * No shell is involved, and its output appears in no message. Throws `DENIED` if the helper fails.
 */
export async function askHelper(name: string, server: string, options: HelperOptions): Promise<Credential | undefined> {
  const program = await findHelper(name, options.environment["PATH"] ?? "");
  const { status, output } = await run(program, server, options);
  if (status !== 0) {
    if (NOTHING_STORED.test(output)) return undefined;
    throw helperError(name, `ended with status ${status}; run it by hand to see why`);
  }
  const answer = parseJsonObject(Buffer.from(output), `credential helper ${name}`);
  const username = optionalString(answer, "Username", `credential helper ${name}`) ?? "";
  const secret = optionalString(answer, "Secret", `credential helper ${name}`) ?? "";
  if (secret === "") return undefined;
  return username === TOKEN_USER ? { kind: "identity-token", token: secret } : { kind: "basic", username, password: secret };
}

async function findHelper(name: string, path: string): Promise<string> {
  if (!NAME.test(name)) throw helperError(JSON.stringify(name.slice(0, 80)), "has a name that is not letters, digits and . _ -");
  for (const directory of path.split(":").filter(isAbsolute)) {
    const program = join(directory, `docker-credential-${name}`);
    const runnable = await access(program, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (runnable) return program;
  }
  throw helperError(name, `is named in the configuration, but no docker-credential-${name} is in PATH`);
}

function run(program: string, server: string, options: HelperOptions): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ["get"], {
      env: options.environment,
      stdio: ["pipe", "pipe", "ignore"],
      timeout: options.timeoutMs ?? 30_000,
      killSignal: "SIGKILL",
    });
    const chunks: Buffer[] = [];
    let length = 0;
    child.stdout.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= MAX_OUTPUT_BYTES) chunks.push(chunk);
      else child.kill("SIGKILL");
    });
    child.on("error", () => reject(helperError(program, "could not be started")));
    child.on("close", (status) => resolve({ status, output: Buffer.concat(chunks).toString() }));
    // A helper that ends without reading breaks the pipe; its status tells what happened.
    child.stdin.on("error", () => undefined);
    child.stdin.end(`${server}\n`);
  });
}

function helperError(name: string, what: string): LazyError {
  return new LazyError("DENIED", `credential helper ${name}: ${what}`);
}
