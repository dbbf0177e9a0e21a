import { setTimeout } from "node:timers/promises";

/** Time as a rate sees it. */
export interface RateClock {
  /** Milliseconds since some moment. */
  now(): number;
  /** Rejects when the signal is aborted. */
  sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
}

const SYSTEM_CLOCK: RateClock = {
  now: () => performance.now(),
  sleep: async (milliseconds, signal) => await setTimeout(milliseconds, undefined, { signal }),
};

/** Spreads bytes over time: in no stretch of it more begin than the rate allows, and one piece. */
export class ByteRate {
  readonly #bytesPerSecond: number;
  readonly #clock: RateClock;
  /** When the next piece may begin. */
  #freeMs = -Infinity;

  /** `Infinity`: no limit. */
  constructor(bytesPerSecond: number, clock: RateClock = SYSTEM_CLOCK) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#clock = clock;
  }

  /** Resolves when a piece of so many bytes may begin; in the order of the calls. Rejects when the signal is aborted. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    const nowMs = this.#clock.now();
    const startMs = Math.max(nowMs, this.#freeMs);
    this.#freeMs = startMs + (bytes / this.#bytesPerSecond) * 1000;
    if (startMs > nowMs) await this.#clock.sleep(startMs - nowMs, signal);
  }
}
