import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { ByteRate, type RateClock } from "./byte-rate.ts";

/** Time that goes on when all who asked are asleep. */
class FakeClock implements RateClock {
  #nowMs = 0;
  readonly #sleepers: { readonly untilMs: number; readonly wake: () => void }[] = [];

  now(): number {
    return this.#nowMs;
  }

  async sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => reject(signal.reason as Error));
    this.#sleepers.push({ untilMs: this.#nowMs + milliseconds, wake: resolve });
    await promise;
  }

  /** Wakes whoever sleeps the shortest; false when nobody does. */
  async advance(): Promise<boolean> {
    await setImmediate();
    this.#sleepers.sort((one, other) => one.untilMs - other.untilMs);
    const first = this.#sleepers.shift();
    if (first === undefined) return false;
    this.#nowMs = first.untilMs;
    first.wake();
    return true;
  }
}

test("in no stretch of time more bytes begin than the rate allows, and one piece", async () => {
  const clock = new FakeClock();
  const rate = new ByteRate(1000, clock);
  const begun: { readonly atMs: number; readonly bytes: number }[] = [];
  const { signal } = new AbortController();
  const readers = [1, 2, 3].map(async (reader) => {
    for (let round = 0; round < 20; round++) {
      const bytes = 100 * reader + round;
      await rate.take(bytes, signal);
      begun.push({ atMs: clock.now(), bytes });
    }
  });
  while (await clock.advance());
  await Promise.all(readers);
  assert.equal(begun.length, 60);
  const largest = Math.max(...begun.map(({ bytes }) => bytes));
  for (const [first, { atMs: startMs }] of begun.entries()) {
    for (let last = first; last < begun.length; last++) {
      const sum = begun.slice(first, last + 1).reduce((total, { bytes }) => total + bytes, 0);
      assert.ok(sum <= begun[last].atMs - startMs + largest + 1e-6, `${sum} bytes from ${startMs} to ${begun[last].atMs} ms`);
    }
  }
  const total = begun.reduce((sum, { bytes }) => sum + bytes, 0);
  assert.ok(clock.now() >= total - largest - 1 && clock.now() <= total, "and not much fewer");
});

test("without a limit nothing waits, and whoever waits hears of the end", async () => {
  const clock = new FakeClock();
  const stop = new AbortController();
  const free = new ByteRate(Infinity, clock);
  for (let round = 0; round < 3; round++) await free.take(2 ** 40, stop.signal);
  const slow = new ByteRate(1, clock);
  await slow.take(1, stop.signal);
  const waiting = slow.take(1, stop.signal);
  stop.abort(new Error("over"));
  await assert.rejects(waiting, /^Error: over$/);
});
