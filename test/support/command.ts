import { spawn } from "node:child_process";

export interface CommandOptions {
  readonly cwd?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
  /** Ends the program with SIGTERM. The promise rejects with the signal's reason, once the program has cleaned up and ended. */
  readonly signal?: AbortSignal;
}

export interface CommandResult {
  /** The exit status; 128 + the signal's number is not used, a killed command has null. */
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs a program to its end, whatever its exit status. Rejects only when it cannot be started. */
export function execute(program: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { signal } = options;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const child = spawn(program, args, {
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
      ...(options.cwd !== undefined && { cwd: options.cwd }),
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout!.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr!.on("data", (chunk: Buffer) => stderr.push(chunk));
    child.once("error", reject);
    const stop = (): void => void child.kill("SIGTERM");
    signal?.addEventListener("abort", stop);
    child.once("close", (status) => {
      signal?.removeEventListener("abort", stop);
      if (signal?.aborted) reject(signal.reason as Error);
      else resolve({ status, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() });
    });
    // A program that does not read all of its input closes the pipe early; its exit status tells the story.
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input);
  });
}

/** Runs a program that must succeed and gives its standard output as text. The error carries the end of what it said. */
export async function run(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { status, stdout, stderr } = await execute(program, args, options);
  if (status !== 0) {
    const said = `${stdout.toString()}${stderr}`.trimEnd().split("\n").slice(-20).join("\n");
    throw new Error(`${program} ${args.join(" ")}: exit status ${status ?? "none (killed)"}\n${said}`);
  }
  return stdout.toString();
}
