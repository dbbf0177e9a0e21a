import { formatPlatform } from "../../oci/platform.ts";
import type { ConversionTally, TallyChange } from "./conversion-tally.ts";
import type { NoteKind, ProgressDisplay } from "./progress-display.ts";

const TOTALS_INTERVAL_MS = 1000;

/** For programs: a JSON object on each line. Its shapes are in docs/cli.md. */
export class JsonDisplay implements ProgressDisplay {
  readonly #stream: { write(text: string): unknown };
  readonly #tally: ConversionTally;
  readonly #timer: NodeJS.Timeout;
  readonly #started = performance.now();
  #isNews = false;

  constructor(stream: { write(text: string): unknown }, tally: ConversionTally) {
    this.#stream = stream;
    this.#tally = tally;
    this.#timer = setInterval(() => this.#totals(), TOTALS_INTERVAL_MS).unref();
  }

  changed(change: TallyChange): void {
    this.#isNews = true;
    if (change.kind === "image") this.#image(change.image);
    else if (change.kind === "layer") this.#layer(change.place);
    else if (change.kind === "image-done") {
      this.#write({ event: "image-done", image: change.image, outcome: change.outcome, digest: change.digest });
    }
  }

  note(kind: NoteKind, message: string): void {
    this.#write({ event: kind, message });
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#totals();
  }

  #image(number: number): void {
    const image = this.#tally.images[number];
    if (image === undefined) return;
    const { name, platform, layers } = image;
    this.#write({
      event: "image",
      image: number,
      name,
      platform: platform === undefined ? null : formatPlatform(platform),
      layers: layers.map(({ digest, bytes }) => ({ digest, size: bytes })),
    });
  }

  #layer(place: { readonly image: number; readonly layer: number }): void {
    const layer = this.#tally.layer(place);
    if (layer === undefined) return;
    const { digest, stage, outcome, blobBytes } = layer;
    const { image, layer: number } = place;
    this.#write({ event: "layer", image, layer: number, digest, stage, outcome, size: blobBytes });
  }

  #totals(): void {
    if (!this.#isNews) return;
    this.#isNews = false;
    const { layers, layersDone, bytes, readBytes } = this.#tally.totals();
    const seconds = Math.round(performance.now() - this.#started) / 1000;
    const { converted, sent, reused } = this.#tally.bytes;
    this.#write({ event: "totals", layers, layersDone, bytes: { total: bytes, read: readBytes, converted, sent, reused }, seconds });
  }

  #write(event: Readonly<Record<string, unknown>>): void {
    this.#stream.write(`${JSON.stringify(event)}\n`);
  }
}
