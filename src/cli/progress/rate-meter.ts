const WINDOW_MS = 15_000;
const STEP_MS = 500;

/** How fast something grows, over the last seconds, so that a rate follows what happens but does not jump. */
export class RateMeter {
  readonly #samples: { readonly ms: number; readonly value: number }[] = [];

  /** `ms` is a clock's; `value` is what has come together so far. */
  add(ms: number, value: number): void {
    const last = this.#samples.at(-1);
    if (last !== undefined && ms - last.ms < STEP_MS) return;
    this.#samples.push({ ms, value });
    while (this.#samples.length > 2 && ms - this.#samples[0].ms > WINDOW_MS) this.#samples.shift();
  }

  /** Per second, up to now; 0 while nothing is known. */
  perSecond(ms: number, value: number): number {
    const first = this.#samples.at(0);
    return first === undefined || ms - first.ms < STEP_MS ? 0 : Math.max(0, ((value - first.value) * 1000) / (ms - first.ms));
  }
}
