export interface HttpTimeouts {
  /** Connecting, with TLS. */
  readonly connectMs: number;
  /** From the end of a request to the head of its answer. */
  readonly answerMs: number;
  /** The same for PUT requests: registries hash and move a blob, or look for all that a manifest names, meanwhile. */
  readonly commitMs: number;
  /** Between two pieces of a body, in either direction. */
  readonly stallMs: number;
}

export const DEFAULT_TIMEOUTS: HttpTimeouts = { connectMs: 15_000, answerMs: 60_000, commitMs: 600_000, stallMs: 30_000 };
/** What the default gives the end of an upload, beside other answers. */
const COMMIT_FACTOR = DEFAULT_TIMEOUTS.commitMs / DEFAULT_TIMEOUTS.answerMs;

/**
 * For reads that a kernel waits for, and behind it programs that cannot be interrupted: an error after a minute, and time for more
 * than one try until then.
 */
export const BLOCK_READ_PATIENCE = {
  readBudgetMs: 60_000,
  timeouts: { answerMs: 20_000, stallMs: 20_000 },
};

/** One time limit for all that is waited for: a connection, an answer, the next piece of a body; ten times as long for the end of an upload. */
export function timeoutsOf(milliseconds: number): HttpTimeouts {
  return { connectMs: milliseconds, answerMs: milliseconds, commitMs: milliseconds * COMMIT_FACTOR, stallMs: milliseconds };
}
