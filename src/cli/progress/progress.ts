import { megabyteCount } from "./byte-text.ts";
import type { Environment } from "../environment.ts";
import { LiveLines } from "./live-lines.ts";

const LOG_INTERVAL_MS = 30_000;
const REDRAW_MS = 150;

/** Shows how much a command has read: a line that changes on a terminal, elsewhere one every half minute. */
export class Progress {
  readonly #stderr: Environment["stderr"];
  readonly #label: string;
  readonly #live: LiveLines | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #started = performance.now();
  #bytes = 0;

  constructor({ stderr, terminal }: Pick<Environment, "stderr" | "terminal">, label: string) {
    this.#stderr = stderr;
    this.#label = label;
    if (terminal.interactive) this.#live = new LiveLines(stderr);
    this.#timer = setInterval(() => this.#show(), this.#live ? REDRAW_MS : LOG_INTERVAL_MS).unref();
  }

  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  advance(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
    this.#live?.clear();
  }

  #show(): void {
    const { seconds } = this;
    const line = `${this.#label}: ${megabyteCount(this.#bytes)} MB, ${megabyteCount(this.#bytes / seconds)} MB/s`;
    if (this.#live) this.#live.show([line]);
    else this.#stderr.write(`${line}\n`);
  }
}
