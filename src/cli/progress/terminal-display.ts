import { layerLines, totalLine } from "./conversion-lines.ts";
import type { ConversionTally, LayerTally } from "./conversion-tally.ts";
import { LiveLines, type TerminalStream } from "./live-lines.ts";
import { noteText, type NoteKind, type ProgressDisplay } from "./progress-display.ts";
import { RateMeter } from "./rate-meter.ts";

const REDRAW_MS = 150;
const BOLD = "\u001b[1m";
const DIM = "\u001b[2m";
const NORMAL = "\u001b[22m";

/** On a terminal: a line for each layer and one for all of them, which are gone at the end. */
export class TerminalDisplay implements ProgressDisplay {
  readonly #lines: LiveLines;
  readonly #tally: ConversionTally;
  readonly #color: boolean;
  readonly #timer: NodeJS.Timeout;
  readonly #read = new RateMeter();
  readonly #work = new RateMeter();
  readonly #layers = new Map<LayerTally, RateMeter>();

  constructor(stream: TerminalStream, tally: ConversionTally, { color }: { readonly color: boolean }) {
    this.#lines = new LiveLines(stream);
    this.#tally = tally;
    this.#color = color;
    this.#timer = setInterval(() => this.draw(performance.now()), REDRAW_MS).unref();
  }

  changed(): void {}

  note(kind: NoteKind, message: string): void {
    this.#lines.note(noteText(kind, message));
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#lines.clear();
  }

  /** Shows where things stand now, which is at `ms` of a clock. */
  draw(ms: number): void {
    const totals = this.#tally.totals();
    if (totals.layers === 0) return;
    this.#read.add(ms, totals.readBytes);
    this.#work.add(ms, totals.workDone);
    const rates = { read: this.#read.perSecond(ms, totals.readBytes), work: this.#work.perSecond(ms, totals.workDone) };
    const layers = layerLines(this.#tally, this.#lines.rows - 1, (layer) => this.#rateOf(layer, ms));
    const styles = [...layers.map(({ isActive }) => (isActive ? "" : DIM)), BOLD];
    this.#lines.show([...layers.map(({ text }) => text), totalLine(totals, rates)], (line, index) => {
      const style = this.#color ? styles[index] : "";
      return style === "" ? line : `${style}${line}${NORMAL}`;
    });
  }

  /** Of what the layer is at: being read, or being sent. */
  #rateOf(layer: LayerTally, ms: number): number {
    if (layer.stage !== "reading" && layer.stage !== "sending") return 0;
    const meter = this.#layers.get(layer) ?? new RateMeter();
    this.#layers.set(layer, meter);
    const bytes = layer.readBytes + layer.sentBytes;
    meter.add(ms, bytes);
    return meter.perSecond(ms, bytes);
  }
}
