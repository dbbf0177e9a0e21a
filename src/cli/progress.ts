import cliProgress, { type GenericFormatter } from "cli-progress";

const LOG_INTERVAL_MS = 30_000;

const formatBar: GenericFormatter = (options, { value, total, progress }, payload: { label: string; speed: number }) => {
  const bar = total > 0 ? ` ${cliProgress.Format.BarFormat(Math.min(progress, 1), options)}` : "";
  return `${payload.label}${bar} ${value}${total > 0 ? ` of ${total}` : ""} MB, ${payload.speed} MB/s`;
};

/**
 * Shows how far a command is: a bar on a terminal, elsewhere a line every half minute. Everything goes to standard error,
 * which standard output's readers never see.
 */
export class Progress {
  readonly #stderr: NodeJS.WriteStream;
  readonly #label: string;
  #bar: cliProgress.SingleBar | undefined;
  #bytes = 0;
  #lastLine = performance.now();
  readonly #started = performance.now();

  constructor(stderr: NodeJS.WriteStream, label: string) {
    this.#stderr = stderr;
    this.#label = label;
    if (!stderr.isTTY) return;
    this.#bar = new cliProgress.SingleBar(
      { stream: stderr, format: formatBar, clearOnComplete: true, hideCursor: true, barsize: 24 },
      cliProgress.Presets.shades_classic,
    );
    this.#bar.start(0, 0, { label, speed: 0 });
  }

  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  /** That many more bytes are to come. Commands that do not know show no bar. */
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
    this.#bar?.start(this.#bar.getTotal(), Math.floor(this.#bytes / 1e6), { label: this.#label, speed: 0 });
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
