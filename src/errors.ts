export const ERROR_CODES = ["USAGE", "NOT_FOUND", "DENIED", "UNSUPPORTED", "CORRUPT", "UNAVAILABLE"] as const;

/**
 * What went wrong, grouped by what the caller does next.
 *
 * - `USAGE`: the call itself is wrong; change it.
 * - `NOT_FOUND`: the named thing does not exist.
 * - `DENIED`: it may exist, but not for these credentials or this user.
 * - `UNSUPPORTED`: well-formed, but outside of what is implemented or possible here.
 * - `CORRUPT`: bytes contradict their format or their digest; reading on would give wrong results.
 * - `UNAVAILABLE`: a place (network, disk, kernel) failed; the same call may succeed later.
 */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** The one error class. The message says what, where, expected, found, and what to do. */
export class LazyError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "LazyError";
    this.code = code;
  }
}

export function corrupt(message: string, options?: ErrorOptions): LazyError {
  return new LazyError("CORRUPT", message, options);
}

export function unsupported(message: string): LazyError {
  return new LazyError("UNSUPPORTED", message);
}

/** A one-line text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
