import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cpuSecondsOf } from "../measure/process-figures.ts";
import { unusedPort } from "../../test/support/server-process.ts";

const PROGRAM = "docker-registry";

/** How often each method was asked for. */
export type RequestCounts = Record<string, number>;

/** Debian's registry on a free loopback port, with a log of who asked for what. Its directory is kept when it ends. */
export class LoopbackRegistry implements AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly #child: ChildProcess;
  readonly #log: string;

  private constructor(host: string, child: ChildProcess, log: string) {
    this.host = host;
    this.#child = child;
    this.#log = log;
  }

  /** Serves what is in `directory/data`, which `publishLayout` can fill before. */
  static async start(directory: string): Promise<LoopbackRegistry> {
    await mkdir(directory, { recursive: true });
    const host = `127.0.0.1:${await unusedPort()}`;
    const config = join(directory, "config.yml");
    const log = join(directory, "registry.log");
    await writeFile(config, configText(dataDirectory(directory), host));
    await using output = await open(log, "w");
    const child = spawn(PROGRAM, ["serve", config], { stdio: ["ignore", output.fd, output.fd] });
    const registry = new LoopbackRegistry(host, child, log);
    try {
      await registry.#untilReady();
    } catch (error) {
      await registry[Symbol.asyncDispose]();
      throw error;
    }
    return registry;
  }

  /** Processor time it has used until now, user and system. */
  async cpuSeconds(): Promise<number> {
    return await cpuSecondsOf(this.#child.pid!);
  }

  /** Requests until now, those of waiting until it was ready left out. */
  async requests(): Promise<RequestCounts> {
    const counts: RequestCounts = {};
    for (const [, method, path] of (await readFile(this.#log, "utf8")).matchAll(/"([A-Z]+) (\/v2\/\S*) HTTP\/[0-9.]+" \d{3} /g)) {
      if (path !== "/v2/?ready") counts[method] = (counts[method] ?? 0) + 1;
    }
    return counts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await once(this.#child, "exit");
  }

  async #untilReady(): Promise<void> {
    let ended: string | undefined;
    this.#child.once("error", (error) => (ended = `${error.message}; install Debian's ${PROGRAM}`));
    this.#child.once("exit", (code) => (ended ??= `ended with status ${code}`));
    for (let tries = 0; tries < 400; tries++) {
      if (ended !== undefined) throw new Error(`${PROGRAM}: ${ended}\n${await readFile(this.#log, "utf8")}`);
      const answer = await fetch(`http://${this.host}/v2/?ready`).catch(() => undefined);
      await answer?.body?.cancel();
      if (answer) return;
      await sleep(25);
    }
    throw new Error(`${PROGRAM}: does not answer at ${this.host}`);
  }
}

/** Where the registry of a directory keeps its data. */
export function dataDirectory(directory: string): string {
  return join(directory, "data");
}

function configText(data: string, host: string): string {
  const lines = [
    "version: 0.1",
    "log: {level: error, accesslog: {disabled: false}}",
    `storage: {filesystem: {rootdirectory: ${JSON.stringify(data)}}, delete: {enabled: true}}`,
    `http: {addr: "${host}", secret: not-a-secret}`,
  ];
  return `${lines.join("\n")}\n`;
}
