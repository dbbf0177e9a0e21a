import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chown, readdir, readFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { execute, run } from "./command.ts";

/** Whose process a server is. Database servers refuse to be root's. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

const READY_TIMEOUT_MS = 30_000;

/** The user that Debian's package has made for its server; undefined if this process is not root's and so may start it itself. */
export async function serverUser(name: string, debianPackage: string): Promise<ServerUser | undefined> {
  if (process.geteuid?.() !== 0) return undefined;
  const { status, stdout } = await execute("getent", ["passwd", name]);
  const [, , uid, gid] = stdout.toString().split(":");
  if (status !== 0 || uid === undefined) throw new Error(`there is no user ${name}: install Debian's ${debianPackage}`);
  return { uid: Number(uid), gid: Number(gid) };
}

/** A program of a server that a test cannot do without: it fails by name, it never skips. */
export async function requireProgram(program: string, debianPackage: string): Promise<void> {
  const { status } = await execute("sh", ["-c", 'command -v "$1"', "sh", program]);
  if (status !== 0) throw new Error(`${program} is missing: install Debian's ${debianPackage}`);
}

export async function giveTo(user: ServerUser | undefined, ...paths: string[]): Promise<void> {
  if (user !== undefined) for (const path of paths) await chown(path, user.uid, user.gid);
}

/** A running server program; `stop` waits for its end. */
export class ServerProcess {
  readonly #child: ChildProcess;
  readonly #program: string;
  #output = "";
  #failure: string | undefined;

  constructor(program: string, args: readonly string[], directory: string, user: ServerUser | undefined) {
    this.#program = program;
    this.#child = spawn(program, args, { cwd: directory, stdio: ["ignore", "ignore", "pipe"], ...user });
    this.#child.stderr?.on("data", (chunk: Buffer) => (this.#output = (this.#output + chunk.toString()).slice(-4000)));
    this.#child.once("error", (error) => (this.#failure = error.message));
    this.#child.once("exit", (code, signal) => (this.#failure ??= `ended with ${code ?? signal}`));
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Waits until `isReady` is true. */
  async ready(isReady: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + READY_TIMEOUT_MS;
    while (performance.now() < end) {
      if (this.#failure !== undefined) throw new Error(`${this.#program}: ${this.#failure}\n${this.#output}`);
      if (await isReady()) return;
      await sleep(25);
    }
    throw new Error(`${this.#program}: not ready after ${READY_TIMEOUT_MS / 1000} s\n${this.#output}`);
  }

  async stop(name: NodeJS.Signals): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined) return;
    this.#child.kill("SIGCONT");
    this.#child.kill(name);
    await once(this.#child, "exit");
  }
}

/**
 * Holds processes still, as a machine that swaps does, and waits until each of their threads has stopped. `resume` lets them go on. Servers
 * have processes that come and go: one that has ended is still enough.
 */
export async function pause(pids: readonly number[]): Promise<void> {
  signal(pids, "SIGSTOP");
  for (const pid of pids) {
    for (const thread of await readdir(`/proc/${pid}/task`).catch(() => [])) {
      while (/^State:\s+[^TXZ]/m.test(await readFile(`/proc/${pid}/task/${thread}/status`, "utf8").catch(() => ""))) await sleep(5);
    }
  }
}

export function resume(pids: readonly number[]): void {
  signal(pids, "SIGCONT");
}

function signal(pids: readonly number[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
    }
  }
}

/** Whether somebody listens on a port of this machine. */
export async function answers(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

export async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** A certificate for `localhost` that vouches for itself, as `server.crt` and `server.key` in the directory. */
export async function makeCertificate(directory: string, user: ServerUser | undefined): Promise<void> {
  await requireProgram("openssl", "openssl");
  const [certificate, key] = [`${directory}/server.crt`, `${directory}/server.key`];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  await run("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject, "-keyout", key, "-out", certificate]);
  await giveTo(user, certificate, key);
}
