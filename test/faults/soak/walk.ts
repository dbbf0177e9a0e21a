import { setTimeout as sleep } from "node:timers/promises";
import type { Chance } from "../../support/recorded-file.ts";

/** Somebody who does random things to a device, or to the world around it. */
export interface Walker {
  readonly id: string;
  /** Does one thing. Throws when something is wrong, not when something fails that may. */
  step(): Promise<void>;
  /** Once all trouble is over: everything has to be right, and nothing may fail. */
  checkpoint(): Promise<void>;
  /** Leaves nothing behind. */
  end(): Promise<void>;
}

/** Lets all walk at the same time for a while; the first thing that is wrong ends it. */
export async function walkTogether(walkers: readonly Walker[], milliseconds: number): Promise<void> {
  const end = performance.now() + milliseconds;
  const trouble = new AbortController();
  const walks = walkers.map(async (walker) => {
    while (performance.now() < end && !trouble.signal.aborted) await walker.step();
  });
  for (const walk of walks) walk.catch((error: unknown) => trouble.abort(error));
  await Promise.allSettled(walks);
  trouble.signal.throwIfAborted();
}

/** Says now and then, by chance, that it is time for something larger. */
export class Clock {
  readonly #chance: Chance;
  readonly #leastMs: number;
  #nextMs = 0;

  constructor(chance: Chance, leastMs: number) {
    this.#chance = chance;
    this.#leastMs = leastMs;
    this.#wind();
  }

  isTime(): boolean {
    if (performance.now() < this.#nextMs) return false;
    this.#wind();
    return true;
  }

  #wind(): void {
    this.#nextMs = performance.now() + this.#leastMs + this.#chance.below(2 * this.#leastMs);
  }
}

/** One of them. */
export function oneOf<T>(chance: Chance, values: readonly T[]): T {
  return values[chance.below(values.length)];
}

/** While `work` is under way, after a little while, something happens. Rejects when either does. */
export async function amid(chance: Chance, work: Promise<unknown>, something: () => void | Promise<void>): Promise<void> {
  // Looked at below; until then it may reject unseen.
  work.catch(() => {});
  await sleep(chance.below(60));
  await something();
  await work;
}
