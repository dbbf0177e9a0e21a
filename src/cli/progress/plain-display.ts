import { totalLine } from "./conversion-lines.ts";
import type { ConversionTally } from "./conversion-tally.ts";
import { noteText, type NoteKind, type ProgressDisplay } from "./progress-display.ts";
import { RateMeter } from "./rate-meter.ts";

const LINE_INTERVAL_MS = 30_000;

/** Off a terminal: a line every half minute, for logs. */
export class PlainDisplay implements ProgressDisplay {
  readonly #stream: { write(text: string): unknown };
  readonly #tally: ConversionTally;
  readonly #timer: NodeJS.Timeout;
  readonly #read = new RateMeter();
  readonly #work = new RateMeter();
  #isNews = false;

  constructor(stream: { write(text: string): unknown }, tally: ConversionTally, intervalMs = LINE_INTERVAL_MS) {
    this.#stream = stream;
    this.#tally = tally;
    this.#timer = setInterval(() => this.report(performance.now()), intervalMs).unref();
  }

  changed(): void {
    const { readBytes, workDone } = this.#tally.totals();
    const ms = performance.now();
    this.#read.add(ms, readBytes);
    this.#work.add(ms, workDone);
    this.#isNews = true;
  }

  note(kind: NoteKind, message: string): void {
    this.#stream.write(`${noteText(kind, message)}\n`);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Writes where things stand at `ms` of a clock, unless nothing has happened since the last time. */
  report(ms: number): void {
    const totals = this.#tally.totals();
    if (!this.#isNews || totals.layers === 0) return;
    this.#isNews = false;
    const rates = { read: this.#read.perSecond(ms, totals.readBytes), work: this.#work.perSecond(ms, totals.workDone) };
    this.#stream.write(`${totalLine(totals, rates)}\n`);
  }
}
