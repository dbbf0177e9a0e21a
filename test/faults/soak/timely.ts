/** The longest that one call may take: more than a device needs to give up on a registry. */
const PATIENCE_MS = 120_000;

/** Fails rather than waiting for ever. */
export async function timely<T>(what: string, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new HangError(`${what}: no answer for ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Nobody answered at all, which is never right. */
export class HangError extends Error {}
