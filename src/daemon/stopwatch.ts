import type { ByteSource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import type { Latency } from "./device-stats.ts";

/** Upper bounds of a histogram, in seconds. */
export const LATENCY_BOUNDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10] as const;
const WINDOW_MS = 5_000;

/** Errors by their code; what is not one of ours counts as `UNAVAILABLE`. */
export type ErrorCounts = Record<string, number>;

export function countError(counts: ErrorCounts, error: unknown): void {
  const code = error instanceof LazyError ? error.code : "UNAVAILABLE";
  counts[code] = (counts[code] ?? 0) + 1;
}

/** Adds up how long things take. Costs nothing while nothing happens. */
export class Stopwatch {
  requests = 0;
  bytes = 0;
  #seconds = 0;
  readonly #buckets = LATENCY_BOUNDS.map(() => 0);
  /** The longest of this window and of the one before. */
  #windows = { startMs: 0, now: 0, before: 0 };

  /** Times a read that answers bytes; one that fails is not counted. */
  async time(read: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const startMs = performance.now();
    const bytes = await read();
    this.#add(performance.now(), startMs);
    this.bytes += bytes.length;
    return bytes;
  }

  latency(): Latency {
    this.#turn(performance.now());
    const { now, before } = this.#windows;
    let sum = 0;
    const buckets = LATENCY_BOUNDS.map((seconds, index) => ({ seconds, count: (sum += this.#buckets[index]) }));
    return { seconds: this.#seconds, maxSeconds: Math.max(now, before), buckets };
  }

  #add(nowMs: number, startMs: number): void {
    const seconds = (nowMs - startMs) / 1000;
    this.requests++;
    this.#seconds += seconds;
    const index = LATENCY_BOUNDS.findIndex((bound) => seconds <= bound);
    if (index >= 0) this.#buckets[index]++;
    this.#turn(nowMs);
    this.#windows.now = Math.max(this.#windows.now, seconds);
  }

  #turn(nowMs: number): void {
    const ageMs = nowMs - this.#windows.startMs;
    if (ageMs < WINDOW_MS) return;
    this.#windows = { startMs: nowMs, now: 0, before: ageMs < 2 * WINDOW_MS ? this.#windows.now : 0 };
  }
}

/** A source whose reads are timed. Closing it closes the other. */
export class TimedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  readonly #stopwatch: Stopwatch;
  readonly #errors: ErrorCounts | undefined;

  /** Failures are counted in `errors`, where nobody else does that. */
  constructor(source: ByteSource, stopwatch: Stopwatch, errors?: ErrorCounts) {
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
    this.#stopwatch = stopwatch;
    this.#errors = errors;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    try {
      return await this.#stopwatch.time(async () => await this.#source.read(offset, length));
    } catch (error) {
      if (this.#errors !== undefined) countError(this.#errors, error);
      throw error;
    }
  }

  distrust(): void {
    this.#source.distrust?.();
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}
