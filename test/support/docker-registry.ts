import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "./command.ts";
import { unusedPort } from "./server-process.ts";

export interface DockerRegistryOptions {
  /** Refuse everybody but `REGISTRY_USER`. */
  readonly basicAuth?: boolean;
  /** Serve over TLS, with these files, to clients with a certificate of the authority. */
  readonly tls?: { readonly certificate: string; readonly key: string; readonly clientAuthority: string };
}

/** A real registry on a free loopback port, with its data in a temporary directory. */
export interface DockerRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Where it keeps its data; a test may damage files in there. */
  readonly directory: string;
  /** Ends it as a power cut does; its data stays. */
  kill(): Promise<void>;
  /** Starts it again after `kill`: the same data on the same port. */
  restart(): Promise<void>;
  /** Removes, while it is down, what no manifest with a tag needs, and starts it again. */
  collectGarbage(): Promise<void>;
  stop(): Promise<void>;
}

export const REGISTRY_USER = { username: "tester", password: "secret-1" };
/** The registry takes bcrypt only; this is the password above with the lowest cost it accepts. */
const HTPASSWD = `${REGISTRY_USER.username}:$2b$05$abcdefghijklmnopqrstuuNyfD1e6TuAxhlZIeKrqXUCJ7D8jeA.m\n`;
const PROGRAM = "docker-registry";

/** Starts Debian's `docker-registry`; fails with what to install if it is not there. */
export async function startDockerRegistry(options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
  const directory = await mkdtemp(join(tmpdir(), "lazylayer-registry-"));
  const port = await unusedPort();
  const config = join(directory, "config.yml");
  await writeFile(join(directory, "htpasswd"), HTPASSWD);
  await writeFile(config, configText(directory, port, options));
  let child: ChildProcess | undefined;
  const restart = async (): Promise<void> => {
    child = spawn(PROGRAM, ["serve", config], { stdio: ["ignore", "ignore", "pipe"] });
    await waitUntilReady(child, port);
  };
  const kill = async (): Promise<void> => {
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const collectGarbage = async (): Promise<void> => {
    await kill();
    await run(PROGRAM, ["garbage-collect", "--delete-untagged", config]);
    await restart();
  };
  const stop = async (): Promise<void> => {
    await kill();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await restart();
  } catch (error) {
    await stop();
    throw error;
  }
  const host = `127.0.0.1:${port}`;
  return { host, directory: join(directory, "data"), kill, restart, collectGarbage, stop, [Symbol.asyncDispose]: stop };
}

function configText(directory: string, port: number, { basicAuth, tls }: DockerRegistryOptions): string {
  const { certificate, key, clientAuthority } = tls ?? {};
  const secured = tls ? `, tls: ${JSON.stringify({ certificate, key, clientcas: [clientAuthority] })}` : "";
  const lines = [
    "version: 0.1",
    "log: {level: error, accesslog: {disabled: true}}",
    `storage: {filesystem: {rootdirectory: ${JSON.stringify(join(directory, "data"))}}, delete: {enabled: true}}`,
    `http: {addr: "127.0.0.1:${port}", secret: not-a-secret${secured}}`,
  ];
  if (basicAuth) lines.push(`auth: {htpasswd: {realm: test, path: ${JSON.stringify(join(directory, "htpasswd"))}}}`);
  return `${lines.join("\n")}\n`;
}

async function waitUntilReady(child: ChildProcess, port: number): Promise<void> {
  let output = "";
  let ended: string | undefined;
  child.stderr?.on("data", (chunk: Buffer) => (output = (output + chunk.toString()).slice(-4000)));
  child.once("error", (error) => (ended = `${error.message}; install Debian's ${PROGRAM}`));
  child.once("exit", (code) => (ended ??= `ended with status ${code}: ${output}`));
  for (let tries = 0; tries < 400; tries++) {
    if (ended !== undefined) throw new Error(`${PROGRAM}: ${ended}`);
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
    if (answer) return;
    await sleep(25);
  }
  throw new Error(`${PROGRAM}: does not answer on port ${port}: ${output}`);
}
