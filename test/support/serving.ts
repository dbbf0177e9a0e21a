import { spawn } from "node:child_process";
import { once } from "node:events";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "./programs.ts";

/** A `lazylayer serve` that is ready for clients; killed, if it has not ended before. */
export interface Serving extends AsyncDisposable {
  /** What it printed when it was ready. */
  readonly line: string;
  readonly stderr: () => string;
  readonly pid: number;
  /** Sends a signal and answers the exit status, null if the signal killed it. */
  readonly end: (signal: NodeJS.Signals) => Promise<number | null>;
}

export async function startServing(image: string, cacheDirectory: string, ...args: string[]): Promise<Serving> {
  const child = spawn(LAZYLAYER, ["serve", image, "--cache-dir", cacheDirectory, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...CLEAN_ENVIRONMENT },
  });
  let [stdout, stderr] = ["", ""];
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const line = Promise.withResolvers<string>();
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
    if (stdout.endsWith("\n")) line.resolve(stdout.trimEnd());
  });
  const exited = once(child, "close");
  void exited.then(() => line.reject(new Error(`ended: ${stderr}`)));
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await exited;
    return child.exitCode;
  };
  return {
    line: await line.promise,
    stderr: () => stderr,
    pid: child.pid!,
    end,
    [Symbol.asyncDispose]: async () => void (await end("SIGKILL")),
  };
}
