import type { ConversionStore, RepositoryName } from "../dedup/conversion-store.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { MediaTypeFamily } from "../oci/media-types.ts";
import type { Platform } from "../oci/platform.ts";
import type { BaseLayer } from "./base-layer.ts";
import type { FilesystemType, ImageFormat } from "./image-format.ts";
import type { ScanThreads } from "./scan-threads.ts";
import type { ConvertObserver, ImageOutcome, LayerOutcome } from "./convert-observer.ts";

/** A result: in which form, and where it goes. */
export interface ConvertTarget {
  readonly format: ImageFormat;
  readonly destination: ImageStore;
  readonly tag: string | undefined;
  /** What was converted before, and under which name the destination is in there. */
  readonly known?: { readonly store: ConversionStore; readonly repository: RepositoryName } | undefined;
  /** The source's repository, if it is another one of the destination's registry: blobs that are stored as they are need not be sent. */
  readonly mountFrom?: string | undefined;
  /** The layers that turboOCI layers refer to are somewhere else, where whoever reads the result will find them. */
  readonly dataElsewhere?: boolean | undefined;
  /** The destination keeps whatever is in it, so the layers that turboOCI layers refer to need no tag of their own there. */
  readonly isArchive?: boolean | undefined;
}

/** Options of all results of a run. */
export interface ConvertOptions {
  /** Size of the device in bytes. */
  readonly virtualSize: number;
  readonly family: MediaTypeFamily;
  /** Of an index, only the images for these; all when empty. */
  readonly platforms: readonly Platform[];
  /** What to do with attestations, which stand in indexes beside the images that they describe. */
  readonly attestations: "keep" | "drop";
  /** The result names its source as its subject, so that it is among the source's referrers. */
  readonly referrer: boolean;
  readonly filesystem: FilesystemType;
  readonly base?: BaseLayer | undefined;
  /** Compress layers anew that turboOCI layers cannot refer to. */
  readonly recompress?: boolean | undefined;
  /** Where temporary data goes; made if missing, and removed again if it was. */
  readonly directory: string;
  /** Leave the blobs behind, each in a directory of its own. */
  readonly keep: boolean;
  /** Leave manifests and configs behind. */
  readonly dump: boolean;
  /** Store the result; otherwise nothing is written to the destination, nor remembered. */
  readonly upload: boolean;
  readonly threads: ScanThreads;
  /** Layers that are read at the same time. */
  readonly concurrency: number;
  /** Images of an index that are converted at the same time. */
  readonly imagesAtOnce: number;
  readonly observer: ConvertObserver;
  readonly signal: AbortSignal;
}

/** A layer of a result: what it was made from, what it is, and how it came to its place. */
export interface LayerResult {
  readonly source: Descriptor;
  readonly converted: Descriptor;
  readonly outcome: LayerOutcome;
}

export interface ImageResult {
  readonly source: Descriptor;
  readonly converted: Descriptor;
  readonly platform: Platform | undefined;
  readonly outcome: ImageOutcome;
  /** Lowest first, without a base layer; empty unless the image was converted. */
  readonly layers: readonly LayerResult[];
}

export interface ConvertResult {
  readonly format: ImageFormat;
  /** The manifest, or the index, that the tag names now. */
  readonly descriptor: Descriptor;
  /** In the order of the source's indexes. */
  readonly images: readonly ImageResult[];
}

/** What would become of a layer: `converted` is known where it was converted before. */
export interface LayerPlan {
  readonly source: Descriptor;
  readonly outcome: "convert" | "reuse" | "mount";
  readonly converted?: { readonly digest: string; readonly size: number } | undefined;
}

export interface ImagePlan {
  readonly source: Descriptor;
  readonly platform: Platform | undefined;
  readonly outcome: "convert" | "reuse" | "copy";
  /** Lowest first; empty unless the image would be converted. */
  readonly layers: readonly LayerPlan[];
}

/** What a conversion would do. What converted layers come to is known only once they are converted. */
export interface ConversionPlan {
  readonly format: ImageFormat;
  readonly images: readonly ImagePlan[];
}
