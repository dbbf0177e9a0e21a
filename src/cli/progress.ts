import { Presets, SingleBar } from "cli-progress";

const LOG_INTERVAL_MS = 30_000;

/**
 * Shows how far a command is: a bar on a terminal, elsewhere a line every half minute. Everything goes to standard error,
 * which standard output's readers never see.
 */
export class Progress {
  readonly #stderr: NodeJS.WriteStream;
  readonly #label: string;
  #bar: SingleBar | undefined;
  #bytes = 0;
  #lastLine = performance.now();
  readonly #started = performance.now();

  constructor(stderr: NodeJS.WriteStream, label: string) {
    this.#stderr = stderr;
    this.#label = label;
    if (!stderr.isTTY) return;
    const format = `${label} {bar} {value} MB, {speed} MB/s`;
    this.#bar = new SingleBar(
      { stream: stderr, format, clearOnComplete: true, hideCursor: true, barsize: 24, noTTYOutput: false },
      Presets.shades_classic,
    );
    this.#bar.start(1, 0, { speed: 0 });
  }

  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  /** More is to come: that many bytes, as far as is known. */
  expect(bytes: number): void {
    this.#bar?.setTotal(this.#bar.getTotal() + Math.ceil(bytes / 1e6));
  }

  advance(bytes: number): void {
    this.#bytes += bytes;
    this.#bar?.update(Math.floor(this.#bytes / 1e6), { speed: Math.round(this.#bytes / 1e6 / this.seconds) });
    if (this.#bar || performance.now() - this.#lastLine < LOG_INTERVAL_MS) return;
    this.#lastLine = performance.now();
    this.#stderr.write(`${this.#label}: ${Math.round(this.#bytes / 1e6)} MB after ${Math.round(this.seconds)} s\n`);
  }

  /** A line above the bar. */
  note(message: string): void {
    this.#bar?.stop();
    this.#stderr.write(`${message}\n`);
    this.#bar?.start(this.#bar.getTotal(), Math.floor(this.#bytes / 1e6), { speed: 0 });
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
