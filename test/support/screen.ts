const ESCAPE = "\u001b";

/** A terminal that only understands what our renderer of live lines uses. */
export class Screen {
  readonly columns: number;
  readonly rows: number;
  text = "";

  constructor(rows = 24, columns = 80) {
    this.rows = rows;
    this.columns = columns;
  }

  write(text: string): boolean {
    this.text += text;
    return true;
  }

  /** What it shows after all that was written. */
  get lines(): string[] {
    const lines: string[] = [];
    const readable = this.text.replaceAll(ESCAPE, "^").replaceAll(/\^\[\d*m/g, "");
    for (const [, up, line] of readable.matchAll(/\^\[(\d+)A\r\^\[J|([^\n^]*)\n/g)) {
      if (up === undefined) lines.push(line);
      else lines.splice(lines.length - Number(up));
    }
    return lines;
  }
}
