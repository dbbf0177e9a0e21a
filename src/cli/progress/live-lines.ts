/** What is needed of a terminal; `process.stderr` is one. */
export interface TerminalStream {
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

const DEFAULT_SIZE = { columns: 80, rows: 24 };
const ESCAPE = "\u001b[";

/** The last lines of a terminal, written over and over. No line may hold control characters; long ones are cut. */
export class LiveLines {
  readonly #stream: TerminalStream;
  #shown = 0;

  constructor(stream: TerminalStream) {
    this.#stream = stream;
  }

  /** Lines that fit, with one left for the cursor. */
  get rows(): number {
    return Math.max(1, (this.#stream.rows || DEFAULT_SIZE.rows) - 1);
  }

  /** Shows these instead of the ones before. `style` may wrap a line that was cut to the terminal's width. */
  show(lines: readonly string[], style: (line: string, index: number) => string = (line) => line): void {
    const width = Math.max(1, (this.#stream.columns || DEFAULT_SIZE.columns) - 1);
    const visible = lines.slice(-this.rows);
    const first = lines.length - visible.length;
    const text = visible.map((line, index) => `${style(line.slice(0, width), first + index)}\n`).join("");
    this.#stream.write(`${this.#erasure()}${text}`);
    this.#shown = visible.length;
  }

  /** A line that stays, above the others, which come back with the next `show`. */
  note(message: string): void {
    this.#stream.write(`${this.#erasure()}${message}\n`);
    this.#shown = 0;
  }

  clear(): void {
    if (this.#shown > 0) this.#stream.write(this.#erasure());
    this.#shown = 0;
  }

  /** To the first of the shown lines, and away with all of them. */
  #erasure(): string {
    return this.#shown === 0 ? "" : `${ESCAPE}${this.#shown}A\r${ESCAPE}J`;
  }
}
