import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { z } from "zod";

const counts = z.object({ requests: z.int(), bytes: z.int() });
export type LineCounts = z.infer<typeof counts>;

/** A registry as it is seen over a slow line, by a process of its own so that nothing else slows it down. */
export class SlowLine implements AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly #child: ChildProcess;

  private constructor(host: string, child: ChildProcess) {
    this.host = host;
    this.#child = child;
  }

  static async start(upstream: string, bytesPerSecond: number, latencyMs: number): Promise<SlowLine> {
    const script = join(import.meta.dirname, "throttled-proxy.ts");
    const child = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", script, upstream, String(bytesPerSecond), String(latencyMs)],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    return new SlowLine(`127.0.0.1:${line.toString().trim()}`, child);
  }

  /** What has gone over the line since the last time. */
  async takeCounts(): Promise<LineCounts> {
    return counts.parse(await (await fetch(`http://${this.host}/counts`)).json());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill();
    await once(this.#child, "exit");
  }
}
