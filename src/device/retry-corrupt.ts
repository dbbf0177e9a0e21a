import { LazyError } from "../errors.ts";

/** What was kept or sent may be wrong although its place has it right: once, `discard` drops it and `attempt` starts over. */
export async function retryingCorrupt<T>(attempt: () => Promise<T>, discard: () => boolean): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof LazyError && error.code === "CORRUPT") || !discard()) throw error;
    return await attempt();
  }
}
