import { LOG_LEVELS, logLine, type LogLevel } from "./log-line.ts";

/** Where what is going on is said. Never throws. */
export type Log = (level: LogLevel, message: string) => void;

export interface LogOptions {
  /** `daemon`, or `device ID`. */
  readonly who: string;
  /** The least level that is said, as configurations number them; beyond the last nothing is. */
  readonly level: number;
  /** Gets whole lines. */
  readonly append: (line: string) => void;
}

export function createLog({ who, level: least, append }: LogOptions): Log {
  return (level, message) => {
    if (LOG_LEVELS.indexOf(level) >= least) append(logLine(new Date(), level, who, message));
  };
}

/** Says the same thing again and again once. */
export function unrepeated(say: (message: string) => void): (message: string) => void {
  let last: string | undefined;
  return (message) => {
    if (message !== last) say(message);
    last = message;
  };
}
