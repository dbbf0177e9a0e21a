/** As configurations number them. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

const LABELS = { debug: "DEBUG", info: "INFO ", warn: "WARN ", error: "ERROR", audit: "AUDIT" } as const;

/**
 * The front of a line, in the form of overlaybd's logs: local time, level, and who writes; that is a thread there and a process here.
 * See docs/daemon.md.
 */
export function linePrefix(time: Date, level: keyof typeof LABELS): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${time.getFullYear()}/${two(time.getMonth() + 1)}/${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  // Six digits are expected; the clock has three of them.
  const microseconds = `${String(time.getMilliseconds()).padStart(3, "0")}000`;
  return `${day} ${clock}.${microseconds}|${LABELS[level]}|th=${process.pid}|`;
}

/** A line of a log. `who`: the daemon, or a device. What is said stays on one line, whatever it is. */
export function logLine(time: Date, level: LogLevel, who: string, message: string): string {
  return `${linePrefix(time, level)}${who}|${onOneLine(message)}\n`;
}

/** Line ends and other control characters as JSON would write them. */
export function onOneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.trimEnd().replace(/[\u0000-\u001f\u007f]/g, (character) => JSON.stringify(character).slice(1, -1));
}
