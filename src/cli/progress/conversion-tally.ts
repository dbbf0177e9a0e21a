import type { ConvertObserver, ImageOutcome, ImageStarted, LayerOutcome, LayerPlace } from "../../convert/convert-observer.ts";
import type { ImageFormat } from "../../convert/image-format.ts";
import type { Digest } from "../../oci/digest.ts";
import type { Platform } from "../../oci/platform.ts";

/**
 * Measured with `npm run bench`: a converted layer is about this many times its gzip layer; overlaybd's because it can be read at any
 * offset, turboOCI's because it leaves the data where it is. What is to come is estimated with it.
 */
export const BLOB_BYTES_PER_STORED_BYTE: Readonly<Record<ImageFormat, number>> = { overlaybd: 1.6, turbo: 0.04 };

/** `converted` waits for the other layers of its image: nothing is sent before all are proven. */
export type LayerStage = "waiting" | "reading" | "converting" | "converted" | "sending" | "done";

export interface LayerTally {
  readonly digest: Digest;
  /** As the source stores it. */
  readonly bytes: number;
  stage: LayerStage;
  readBytes: number;
  sentBytes: number;
  /** Known once it is converted or found. */
  blobBytes: number | undefined;
  /** Of the layer's results, how many nothing more will happen to, and their bytes. */
  resultsDone: number;
  bytesDone: number;
  outcome: LayerOutcome | undefined;
}

export interface ImageTally {
  readonly name: string;
  readonly platform: Platform | undefined;
  readonly layers: readonly LayerTally[];
  /** Forms that each layer is converted to. */
  readonly results: number;
}

export interface TallyOptions {
  readonly uploads: boolean;
  /** Of all results of a layer together, as an estimate. */
  readonly blobBytesPerStoredByte: number;
}

/** In bytes; what was sent again counts once. */
export interface ByteCounts {
  /** Of source layers. */
  read: number;
  /** Of layers that were made. */
  converted: number;
  /** Of layers that were sent to the destination. */
  sent: number;
  /** Of layers that were there already, in the destination or where they could be taken from. */
  reused: number;
}

export interface Totals {
  readonly layers: number;
  readonly layersDone: number;
  /** Of source layers, and how much of that is behind us. */
  readonly bytes: number;
  readonly readBytes: number;
  /** Reading and sending together, in bytes; sizes that are not known yet are estimated. */
  readonly work: number;
  readonly workDone: number;
}

/** How the tally has changed. */
export type TallyChange =
  | { readonly kind: "image"; readonly image: number }
  | { readonly kind: "layer"; readonly place: LayerPlace }
  | { readonly kind: "bytes" }
  | { readonly kind: "image-done"; readonly image: number; readonly outcome: ImageOutcome; readonly digest: Digest };

/** Where a conversion stands: what its observer was told, added up. */
export class ConversionTally implements ConvertObserver {
  /** By their number; one that has not begun yet is missing. */
  readonly images: (ImageTally | undefined)[] = [];
  readonly bytes: ByteCounts = { read: 0, converted: 0, sent: 0, reused: 0 };
  readonly #options: TallyOptions;
  readonly #changed: (change: TallyChange) => void;

  constructor(options: TallyOptions, changed: (change: TallyChange) => void) {
    this.#options = options;
    this.#changed = changed;
  }

  imageStarted({ image, name, platform, layers, results }: ImageStarted): void {
    const tallies = layers.map(({ digest, bytes }): LayerTally => ({
      digest,
      bytes,
      stage: "waiting",
      readBytes: 0,
      sentBytes: 0,
      blobBytes: undefined,
      resultsDone: 0,
      bytesDone: 0,
      outcome: undefined,
    }));
    this.images[image] = { name, platform, layers: tallies, results };
    this.#changed({ kind: "image", image });
  }

  layerRead(place: LayerPlace, bytes: number): void {
    this.bytes.read += bytes;
    this.#update(place, (layer) => {
      layer.readBytes = Math.min(layer.bytes, layer.readBytes + bytes);
      return layer.readBytes < layer.bytes ? "reading" : "converting";
    });
  }

  layerConverted(place: LayerPlace, bytes: number): void {
    this.bytes.converted += bytes;
    this.#update(place, (layer) => {
      layer.blobBytes = (layer.blobBytes ?? layer.bytesDone) + bytes;
      return layer.stage === "sending" ? "sending" : "converted";
    });
  }

  layerSent(place: LayerPlace, bytes: number): void {
    this.#update(place, (layer) => {
      layer.sentBytes = Math.min(layer.blobBytes ?? Infinity, layer.sentBytes + bytes);
      return "sending";
    });
  }

  layerDone(place: LayerPlace, outcome: LayerOutcome, bytes: number): void {
    if (outcome === "uploaded") this.bytes.sent += bytes;
    else if (outcome !== "kept") this.bytes.reused += bytes;
    const { results = 1 } = this.images[place.image] ?? {};
    this.#update(place, (layer) => {
      layer.resultsDone++;
      layer.bytesDone += bytes;
      if (layer.resultsDone < results) return layer.stage;
      layer.blobBytes = layer.bytesDone;
      layer.outcome = outcome;
      return "done";
    });
  }

  imageDone(image: number, outcome: ImageOutcome, digest: Digest): void {
    for (const layer of this.images[image]?.layers ?? []) layer.stage = "done";
    this.#changed({ kind: "image-done", image, outcome, digest });
  }

  layer({ image, layer }: LayerPlace): LayerTally | undefined {
    return this.images[image]?.layers[layer];
  }

  totals(): Totals {
    const totals = { layers: 0, layersDone: 0, bytes: 0, readBytes: 0, work: 0, workDone: 0 };
    for (const layer of this.images.flatMap((image) => image?.layers ?? [])) {
      const isDone = layer.stage === "done";
      const read = isDone ? layer.bytes : layer.readBytes;
      const { uploads, blobBytesPerStoredByte } = this.#options;
      const toSend = uploads ? (layer.blobBytes ?? layer.bytes * blobBytesPerStoredByte) : 0;
      totals.layers++;
      if (isDone) totals.layersDone++;
      totals.bytes += layer.bytes;
      totals.readBytes += read;
      totals.work += layer.bytes + toSend;
      totals.workDone += read + (isDone ? toSend : Math.min(toSend, layer.sentBytes));
    }
    return totals;
  }

  #update(place: LayerPlace, update: (layer: LayerTally) => LayerStage): void {
    const layer = this.layer(place);
    if (layer === undefined) return;
    const before = layer.stage;
    layer.stage = update(layer);
    this.#changed(layer.stage === before ? { kind: "bytes" } : { kind: "layer", place });
  }
}
