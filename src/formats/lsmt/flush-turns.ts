/**
 * Takes turns flushing: one at a time, and callers that come while one is underway share the next, because the one underway may have
 * missed what they wrote.
 */
export class FlushTurns {
  readonly #flush: () => Promise<void>;
  #underway: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(flush: () => Promise<void>) {
    this.#flush = flush;
  }

  async take(): Promise<void> {
    this.#next ??= this.#afterThis();
    await this.#next;
  }

  async #afterThis(): Promise<void> {
    // Whoever waits for it hears of its failure.
    await this.#underway.catch(() => {});
    this.#underway = this.#flush();
    this.#next = undefined;
    await this.#underway;
  }
}
