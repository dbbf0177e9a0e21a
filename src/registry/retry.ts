import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../errors.ts";
import { RegistryError } from "./registry-error.ts";

export interface RetryPolicy {
  /** Tries in all, at least 1. */
  readonly tries: number;
  /** The pause after the first failure; doubles from there, and varies by up to a half. */
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
  /** A server that asks for a longer wait than this is taken as unavailable at once. */
  readonly maxRetryAfterMs: number;
}

export interface Pause {
  readonly milliseconds: number;
  readonly reason: string;
}

/** What is tried, and tried again. */
export interface Attempted {
  /** Starts the messages of errors. */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
  /** Hears of each failure. */
  readonly onFailure?: ((error: unknown) => void) | undefined;
}

/** Waits after failure number `failures` (from 1), or throws the error if it is final. */
export class Backoff {
  readonly #policy: RetryPolicy;
  readonly #onPause: (pause: Pause) => void;

  constructor(policy: RetryPolicy, onPause: (pause: Pause) => void) {
    this.#policy = policy;
    this.#onPause = onPause;
  }

  async pauseOrThrow(error: unknown, failures: number, { what, signal }: Attempted): Promise<void> {
    signal?.throwIfAborted(); // what was stopped has not failed
    if (!(error instanceof RegistryError) || !error.retryable) throw error;
    const { tries, maxRetryAfterMs } = this.#policy;
    const asked = error.retryAfterMs ?? 0;
    if (asked > maxRetryAfterMs) {
      throw givenUp(error, what, `wants to be asked again in ${Math.ceil(asked / 1000)} s, which is longer than is waited for`);
    }
    if (failures >= tries) throw failures === 1 ? error : givenUp(error, what, `gave up after ${failures} tries`);
    const milliseconds = Math.max(asked, this.#delay(failures));
    this.#onPause({ milliseconds, reason: messageOf(error) });
    await sleep(milliseconds, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted());
  }

  /** Runs the attempt until it succeeds or fails for good. */
  async run<T>(attempt: () => Promise<T>, what: Attempted): Promise<T> {
    for (let failures = 1; ; failures++) {
      try {
        return await attempt();
      } catch (error) {
        what.onFailure?.(error);
        await this.pauseOrThrow(error, failures, what);
      }
    }
  }

  #delay(failures: number): number {
    const { firstDelayMs, maxDelayMs } = this.#policy;
    return Math.min(maxDelayMs, firstDelayMs * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
  }
}

/** The last failure, with what was tried and why it is not tried again. */
function givenUp(error: RegistryError, what: string, why: string): RegistryError {
  const { code, message, status, url, retryAfterMs } = error;
  const named = message.includes(what) ? message : `${what}: ${message}`;
  return new RegistryError(code, `${named}; ${why}`, { status, url, retryAfterMs, retryable: true }, { cause: error });
}

/** `Retry-After` as milliseconds: seconds, or a date counted from the answer's own `Date`. Anything else is ignored. */
export function parseRetryAfter(value: string | undefined, date: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  if (!/^[A-Z][a-z]{2}, /.test(value)) return undefined;
  const wait = Date.parse(value) - Date.parse(date ?? "");
  return Number.isFinite(wait) ? Math.max(0, wait) : undefined;
}
