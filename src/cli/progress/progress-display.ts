import type { TallyChange } from "./conversion-tally.ts";

export const PROGRESS_MODES = ["auto", "plain", "json", "none"] as const;
export type ProgressMode = (typeof PROGRESS_MODES)[number];

/** `detail` is what --verbose asks for, `summary` the one line at the end. */
export type NoteKind = "warning" | "notice" | "detail" | "summary";

/** Shows how far a conversion is, on standard error. */
export interface ProgressDisplay {
  /** The tally has changed. */
  changed(change: TallyChange): void;
  note(kind: NoteKind, message: string): void;
  /** Shows where things stand for the last time, if that is worth it. Notes may follow. */
  stop(): void;
}

/** A note on a line of its own. */
export function noteText(kind: NoteKind, message: string): string {
  return kind === "warning" ? `warning: ${message}` : message;
}
