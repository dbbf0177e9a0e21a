import type { BlockCache } from "../cache/block-cache.ts";
import type { FileExtent } from "../formats/lsmt/unsealed-layer.ts";
import type { BlobPlace } from "./blob-place.ts";
import type { FetchCounts } from "./counted-source.ts";
import type { LayerCaches } from "./layer-caches.ts";

/** What images are opened from, besides local files. */
export interface ImagePlaces {
  /**
   * Opens the repository that a `repoBlobUrl` names. It is not closed here: images may share it.
   * Throws `USAGE` for a URL that names none.
   */
  readonly openRemote: (repoBlobUrl: string) => Promise<BlobPlace>;
  /** Keeps what is read of remote blobs; without it they are read from their place every time. */
  readonly cache: BlockCache | undefined;
  /** Keeps what is read of layers in their directories, instead of `cache`. */
  readonly layerCaches?: LayerCaches | undefined;
  /** Keeps what compressed targets of turboOCI layers hold, instead of `cache`. */
  readonly gzipCache: BlockCache | undefined;
  /** Finds where a file has data and no holes, ascending; for sparse uppers, which cannot be opened without. */
  readonly findDataExtents?: ((path: string) => Promise<readonly FileExtent[]>) | undefined;
  /** Called before an upper layer is opened, with the path of its data; throws where that must not be. */
  readonly claimUpper?: ((path: string) => Promise<void>) | undefined;
  /** Told what goes on in spite of a defect. */
  readonly notice: (message: string) => void;
}

/** The places of one image. */
export interface OpeningPlaces extends ImagePlaces {
  /** As the image names it, without a slash at its end; may be empty. */
  readonly repoBlobUrl: string;
  /** The repository there; opened at the first call. */
  readonly remote: () => Promise<BlobPlace>;
  readonly fetched: FetchCounts;
}
