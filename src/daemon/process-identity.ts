import { readFileSync } from "node:fs";

/** A process, told apart from a later one that has the same id. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it was started, in ticks of the machine's clock since that was. */
  readonly startTicks: number;
}

/** Where the fields of `/proc/PID/stat` are, counted behind the name (proc_pid_stat(5): fields 3 and 22). */
const STATE_FIELD = 0;
const START_FIELD = 19;

/** Undefined when it has ended, also when nobody has been told so yet. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const text = readStat(pid);
  // The name is in parentheses, and may have any in it.
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ") ?? [];
  const startTicks = Number(fields[START_FIELD]);
  const hasEnded = ["Z", "X", "x", undefined].includes(fields[STATE_FIELD]);
  return hasEnded || !Number.isSafeInteger(startTicks) ? undefined : { pid, startTicks };
}

export function isAlive({ pid, startTicks }: ProcessIdentity): boolean {
  return identityOf(pid)?.startTicks === startTicks;
}

function readStat(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch (error) {
    // Files of a process answer ESRCH when it ends while they are read.
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ESRCH")) return undefined;
    throw error;
  }
}
