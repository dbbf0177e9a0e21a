import type { CommanderError } from "commander";
import { LazyError, messageOf } from "../errors.ts";

const SIGNAL_NUMBERS = { SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 } as const;

/** A signal ended the command: the status is 128 and its number, as for programs that do not catch it. */
class Interrupted extends Error {
  readonly status: number;

  constructor(name: keyof typeof SIGNAL_NUMBERS) {
    super(`interrupted by ${name}`);
    this.status = 128 + SIGNAL_NUMBERS[name];
  }
}

/** Aborted on SIGINT, on SIGTERM, and when nobody takes the output. A second signal ends the process at once. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  process.stdout.on("error", (error: Error) => controller.abort(outputFailure(error)));
  // Progress and warnings that nobody reads are no reason to stop, nor is there a way to say so.
  process.stderr.on("error", () => {});
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      controller.abort(new Interrupted(name));
      process.once(name, () => process.exit(128 + SIGNAL_NUMBERS[name]));
    });
  }
  return controller.signal;
}

/** A closed pipe is an ordinary end, as in `lazylayer cat … | head`. */
function outputFailure(error: Error): Error {
  if ("code" in error && error.code === "EPIPE") return new Interrupted("SIGPIPE");
  return new LazyError("UNAVAILABLE", `cannot write to standard output: ${error.message}`, { cause: error });
}

/** Told by its code, and not by its class: a device process has no command line that would have to be loaded. */
function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && "code" in error && typeof error.code === "string" && error.code.startsWith("commander.");
}

/** The status for whatever a command threw: 2 for a wrong call, 1 for a failure, 128 + n for a signal. */
export function exitStatus(error: unknown): number {
  if (error instanceof Interrupted) return error.status;
  if (isCommanderError(error)) return error.exitCode === 0 ? 0 : 2;
  return error instanceof LazyError && error.code === "USAGE" ? 2 : 1;
}

/** One line that says what went wrong; undefined where that has been said already or nobody listens. */
function failureLine(program: string, error: unknown): string | undefined {
  if (isCommanderError(error)) return undefined;
  if (error instanceof Interrupted && error.status === 128 + SIGNAL_NUMBERS.SIGPIPE) return undefined;
  if (error instanceof LazyError || error instanceof Interrupted || isSystemError(error)) return `${program}: ${error.message}\n`;
  // Not one of ours: a defect. Its stack is what a report needs.
  return `${program}: unexpected error: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}\n`;
}

/** What the operating system refuses (a full disk, a directory that may not be written to) says what and where in one line. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "errno" in error;
}

async function outputWritten(): Promise<void> {
  await new Promise<void>((resolve, reject) => process.stdout.write("", (error) => (error ? reject(error) : resolve())));
}

/** Runs a command line to its end and sets the process's status. */
export async function runToExit(program: string, signal: AbortSignal, run: () => Promise<number | void>): Promise<void> {
  try {
    const status = (await run()) ?? 0;
    await outputWritten();
    process.exitCode = status;
  } catch (thrown) {
    const error: unknown = signal.aborted ? signal.reason : thrown;
    const line = failureLine(program, error);
    if (line !== undefined) process.stderr.write(line);
    process.exitCode = exitStatus(error);
  }
}
