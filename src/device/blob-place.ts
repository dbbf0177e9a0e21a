import type { BlockCache } from "../cache/block-cache.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { FetchCounts } from "./counted-source.ts";

/** Where the blobs of an image are. */
export interface BlobPlace extends Pick<ImageStore, "name" | "blobSource">, Partial<Pick<ImageStore, "hasBlob">> {
  /** The size of a blob of which only the digest is known; undefined if it is not there. */
  blobSize?(digest: Digest): Promise<number | undefined>;
}

/** What layers are opened from. */
export interface LayerPlaces {
  /** Has the layer blobs of the image. */
  readonly layers: BlobPlace;
  /** Has the blobs that turboOCI layers point to. */
  readonly data: BlobPlace;
  readonly cache: BlockCache | undefined;
  /** Counts what is asked of either place. */
  readonly fetched: FetchCounts;
}
