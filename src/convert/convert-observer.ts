import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";

/** A layer of one of the images that are being converted; both are counted from 0. */
export interface LayerPlace {
  readonly image: number;
  readonly layer: number;
}

/**
 * What became of a converted layer: sent, found in the destination by its digest, known from an earlier conversion and still there,
 * taken from another repository, or left where it was made because nothing is to be stored.
 */
export type LayerOutcome = "uploaded" | "exists" | "reused" | "mounted" | "kept";

/** What became of an image: converted, known as a whole from an earlier conversion, or left as it is because there is nothing to convert. */
export type ImageOutcome = "converted" | "reused" | "copied";

export interface ImageStarted {
  readonly image: number;
  /** Where it comes from, for people. */
  readonly name: string;
  /** Of the index that it is in. */
  readonly platform: Platform | undefined;
  /** The source's layers, lowest first, and their stored sizes. */
  readonly layers: readonly { readonly digest: Digest; readonly bytes: number }[];
  /** What each layer is converted to: that many forms, each of which is converted, sent and done. */
  readonly results: number;
}

/** Told about a conversion as it goes; all of it is optional, and must not throw. */
export interface ConvertObserver {
  imageStarted?(event: ImageStarted): void;
  /** That many more bytes of a source layer have been read. */
  layerRead?(place: LayerPlace, bytes: number): void;
  /** The layer's blob is complete, of `bytes` bytes. */
  layerConverted?(place: LayerPlace, bytes: number): void;
  /** That many more bytes of a converted layer have been handed to the destination; a layer that is sent again starts over. */
  layerSent?(place: LayerPlace, bytes: number): void;
  /** Nothing more will happen to the layer, whose blob has `bytes` bytes. */
  layerDone?(place: LayerPlace, outcome: LayerOutcome, bytes: number): void;
  imageDone?(image: number, outcome: ImageOutcome, digest: Digest): void;
  /** Something that the user should know but that does not stop the conversion. */
  warning?(message: string): void;
}
