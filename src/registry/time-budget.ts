import { messageOf } from "../errors.ts";
import { RegistryError } from "./registry-error.ts";
import type { Attempted } from "./retry.ts";

/**
 * Runs what is tried several times with a signal that tells it when it has to end; without `milliseconds` it takes as long as it takes.
 * Parts of it that others wait for, too, and which therefore go on, are not waited for. The error says how the last try failed.
 */
export async function withinBudget<T>(
  milliseconds: number | undefined,
  { what, signal }: Attempted,
  work: (attempted: Attempted) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  if (milliseconds === undefined) return await work({ what, signal });
  let failure: unknown;
  const limit = new AbortController();
  const ended = Promise.withResolvers<never>();
  const end = (reason: unknown): void => {
    limit.abort(reason);
    ended.reject(reason);
  };
  // Not AbortSignal.any: what joins a signal that lives for weeks with one for each read has to be undone.
  const stop = (): void => end(signal?.reason);
  signal?.addEventListener("abort", stop);
  const timer = setTimeout(() => end(spent(what, milliseconds, failure)), milliseconds);
  const onFailure = (error: unknown): void => void (failure = error);
  try {
    return await Promise.race([work({ what, signal: limit.signal, onFailure }), ended.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function spent(what: string, milliseconds: number, failure: unknown): RegistryError {
  const last = failure === undefined ? "" : `; the last failure: ${messageOf(failure)}`;
  const message = `${what}: gave up after ${milliseconds / 1000} s${last}`;
  return new RegistryError("UNAVAILABLE", message, { url: what, retryable: true }, { cause: failure });
}
