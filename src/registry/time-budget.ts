export interface TimeBudget {
  readonly milliseconds: number;
  /** What the work fails with when it takes longer. */
  readonly spent: () => Error;
  /** Ends the work before, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Runs `work` with a signal that tells it when it has to end. Parts of it that others wait for, too, and which therefore go on, are not waited for. */
export async function withinBudget<T>({ milliseconds, spent, signal }: TimeBudget, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  const limit = new AbortController();
  const ended = Promise.withResolvers<never>();
  const end = (reason: unknown): void => {
    limit.abort(reason);
    ended.reject(reason);
  };
  // Not AbortSignal.any: what joins a signal that lives for weeks with one for each read has to be undone.
  const stop = (): void => end(signal?.reason);
  signal?.addEventListener("abort", stop);
  const timer = setTimeout(() => end(spent()), milliseconds);
  try {
    return await Promise.race([work(limit.signal), ended.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}
