import type { BlockCache } from "../cache/block-cache.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { FetchCounts } from "./counted-source.ts";

/** Where the blobs of an image are. */
export type BlobPlace = Pick<ImageStore, "name" | "blobSize" | "blobSource">;

/** What layers are opened from. */
export interface LayerPlaces {
  /** Has the layer blobs of the image. */
  readonly layers: BlobPlace;
  /** Has the blobs that turboOCI layers point to. */
  readonly data: BlobPlace;
  readonly cache: BlockCache | undefined;
  /** Counts what is asked of either place. */
  readonly fetched: FetchCounts;
  /** Told what goes on in spite of a place that fails; without it, nothing does. */
  readonly notice?: ((message: string) => void) | undefined;
}
