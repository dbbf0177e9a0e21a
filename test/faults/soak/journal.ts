const KEPT_LINES = 40;

/** What was done, by whom: the last of it in words, all of it in numbers. */
export class Journal {
  readonly #startMs = performance.now();
  readonly #last = new Map<string, { readonly seconds: number; readonly line: string }[]>();
  readonly #counts = new Map<string, number>();

  /** `what` begins with a word for what is done, or has `failed: ` and the reason in it. */
  note(who: string, what: string): void {
    const kind = `${who} ${kindOf(what)}`;
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    const seconds = (performance.now() - this.#startMs) / 1000;
    const lines = this.#last.get(who) ?? [];
    this.#last.set(who, lines);
    lines.push({ seconds, line: `${seconds.toFixed(3)} ${who}: ${what}` });
    if (lines.length > KEPT_LINES) lines.shift();
  }

  /** The last steps of everybody, in their order. */
  steps(): string {
    const lines = [...this.#last.values()].flat().sort((a, b) => a.seconds - b.seconds);
    return lines.map(({ line }) => line).join("\n");
  }

  /** How often what was done, and what failed. */
  summary(): string {
    return [...this.#counts]
      .map(([kind, count]) => `${kind}: ${count}`)
      .sort()
      .join("\n");
  }
}

/** Without what is different every time. */
function kindOf(what: string): string {
  const [failure] = /failed: .*/.exec(what) ?? [];
  return failure?.replace(/[0-9a-f]{8,}|\d+|\/tmp\/\S+/g, "…").slice(0, 200) ?? what.split(" ", 1)[0];
}
