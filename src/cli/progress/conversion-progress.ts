import type { ImageFormat } from "../../convert/image-format.ts";
import type { ConvertObserver } from "../../convert/convert-observer.ts";
import { formatPlatform } from "../../oci/platform.ts";
import { BLOB_BYTES_PER_STORED_BYTE, ConversionTally, type ByteCounts, type TallyChange } from "./conversion-tally.ts";
import type { Environment } from "../environment.ts";
import { JsonDisplay } from "./json-display.ts";
import { PlainDisplay } from "./plain-display.ts";
import { noteText, type NoteKind, type ProgressDisplay, type ProgressMode } from "./progress-display.ts";
import { TerminalDisplay } from "./terminal-display.ts";

export interface ConversionProgressOptions {
  readonly mode: ProgressMode;
  /** Nothing at all is shown. */
  readonly quiet: boolean;
  /** Each step of each layer is a line. */
  readonly verbose: boolean;
  /** Converted layers are sent to a destination. */
  readonly uploads: boolean;
  readonly formats: readonly ImageFormat[];
}

/** Follows a conversion and shows how far it is, as the user wants it. */
export class ConversionProgress {
  readonly #tally: ConversionTally;
  readonly #display: ProgressDisplay | undefined;
  readonly #verbose: boolean;
  readonly #started = performance.now();
  #stopped = false;

  constructor(
    environment: Pick<Environment, "stderr" | "terminal">,
    { mode, quiet, verbose, uploads, formats }: ConversionProgressOptions,
  ) {
    const blobBytesPerStoredByte = formats.reduce((sum, format) => sum + BLOB_BYTES_PER_STORED_BYTE[format], 0);
    this.#tally = new ConversionTally({ uploads, blobBytesPerStoredByte }, (change) => this.#changed(change));
    this.#verbose = verbose;
    this.#display = quiet ? undefined : displayFor(mode, environment, this.#tally);
  }

  /** What the conversion tells its news. */
  get observer(): ConvertObserver {
    return {
      imageStarted: (event) => this.#tally.imageStarted(event),
      layerRead: (place, bytes) => this.#tally.layerRead(place, bytes),
      layerConverted: (place, bytes) => this.#tally.layerConverted(place, bytes),
      layerSent: (place, bytes) => this.#tally.layerSent(place, bytes),
      layerDone: (place, outcome, bytes) => this.#tally.layerDone(place, outcome, bytes),
      imageDone: (image, outcome, digest) => this.#tally.imageDone(image, outcome, digest),
      warning: (message) => this.note("warning", message),
    };
  }

  get bytes(): Readonly<ByteCounts> {
    return this.#tally.bytes;
  }

  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  note(kind: NoteKind, message: string): void {
    this.#display?.note(kind, message);
  }

  /** Idempotent. */
  stop(): void {
    if (!this.#stopped) this.#display?.stop();
    this.#stopped = true;
  }

  #changed(change: TallyChange): void {
    this.#display?.changed(change);
    const detail = this.#verbose ? detailOf(change, this.#tally) : undefined;
    if (detail !== undefined) this.note("detail", detail);
  }
}

function displayFor(mode: ProgressMode, { stderr, terminal }: Pick<Environment, "stderr" | "terminal">, tally: ConversionTally) {
  switch (mode) {
    case "auto":
      return terminal.interactive ? new TerminalDisplay(stderr, tally, terminal) : new PlainDisplay(stderr, tally);
    case "plain":
      return new PlainDisplay(stderr, tally);
    case "json":
      return new JsonDisplay(stderr, tally);
    case "none":
      return onlyWarnings(stderr);
  }
}

/** And what --verbose asks for, if somebody asks for both. */
function onlyWarnings(stream: { write(text: string): unknown }): ProgressDisplay {
  return {
    changed: () => {},
    note: (kind, message) => {
      if (kind === "warning" || kind === "detail") stream.write(`${noteText(kind, message)}\n`);
    },
    stop: () => {},
  };
}

function detailOf(change: TallyChange, tally: ConversionTally): string | undefined {
  if (change.kind === "image") {
    const image = tally.images[change.image];
    if (image === undefined) return undefined;
    const bytes = image.layers.reduce((sum, layer) => sum + layer.bytes, 0);
    return `converting ${image.name}: ${image.layers.length} layers, ${bytes} bytes`;
  }
  if (change.kind !== "layer") return undefined;
  const { platform } = tally.images[change.place.image] ?? {};
  const name = `${platform === undefined ? "" : `${formatPlatform(platform)}: `}layer ${change.place.layer}`;
  const layer = tally.layer(change.place);
  if (layer?.stage === "converted") return `${name} converted, ${layer.blobBytes} bytes`;
  if (layer?.stage === "done") return `${name} ${layer.outcome === "exists" ? "exists already" : layer.outcome}`;
  return undefined;
}
