import { CommanderError } from "commander";
import { LazyError, messageOf } from "../errors.ts";

/** A signal ended the command: the status is 128 and its number, as for programs that do not catch it. */
export class Interrupted extends Error {
  readonly status: number;

  constructor(name: "SIGINT" | "SIGTERM") {
    super(`interrupted by ${name}`);
    this.status = name === "SIGINT" ? 130 : 143;
  }
}

/** Aborted on SIGINT and SIGTERM. A second signal ends the process at once. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      controller.abort(new Interrupted(name));
      process.once(name, () => process.exit(name === "SIGINT" ? 130 : 143));
    });
  }
  return controller.signal;
}

/** The status for whatever a command threw: 2 for a wrong call, 1 for a failure, 128 + n for a signal. */
export function exitStatus(error: unknown): number {
  if (error instanceof Interrupted) return error.status;
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  return error instanceof LazyError && error.code === "USAGE" ? 2 : 1;
}

/** One line that says what went wrong; undefined where that has been said already. */
export function failureLine(program: string, error: unknown): string | undefined {
  if (error instanceof CommanderError) return undefined;
  if (error instanceof LazyError || error instanceof Interrupted) return `${program}: ${error.message}\n`;
  // Not one of ours: a defect. Its stack is what a report needs.
  return `${program}: unexpected error: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}\n`;
}

/** Runs a command line to its end and sets the process's status. */
export async function runToExit(program: string, signal: AbortSignal, run: () => Promise<number | void>): Promise<void> {
  try {
    process.exitCode = (await run()) ?? 0;
  } catch (thrown) {
    const error: unknown = signal.aborted ? signal.reason : thrown;
    const line = failureLine(program, error);
    if (line !== undefined) process.stderr.write(line);
    process.exitCode = exitStatus(error);
  }
}
