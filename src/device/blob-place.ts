import type { ByteSource } from "../bytes/source.ts";
import type { BlockCache } from "../cache/block-cache.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { FetchCounts } from "./counted-source.ts";

/** Where the blobs of an image are. */
export interface BlobPlace extends Pick<ImageStore, "name" | "blobSize"> {
  /** As of an `ImageStore`. `inBackground`: nobody waits for what is read, which is good to know for who watches reads. */
  blobSource(descriptor: Descriptor, options?: { readonly inBackground?: boolean }): Promise<ByteSource>;
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
