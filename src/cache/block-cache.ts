import type { ByteSource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import { CachedSource } from "./cached-source.ts";
import { SegmentPool, type SegmentPoolOptions } from "./segment-pool.ts";

const KEY = /^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$/;

/**
 * A bounded cache of remote blobs in a directory, safe to be killed at any time and to be shared by processes.
 * A blob is kept as segment files of 256 chunks; segments are evicted whole, least recently used first.
 */
export class BlockCache {
  readonly #pool: SegmentPool;

  private constructor(pool: SegmentPool) {
    this.#pool = pool;
  }

  /** `chunkBytes` is a power of two from 4096 to 16 MiB. */
  static async open(directory: string, options: SegmentPoolOptions): Promise<BlockCache> {
    const { chunkBytes } = options;
    if (chunkBytes < 4096 || chunkBytes > 2 ** 24 || !Number.isInteger(Math.log2(chunkBytes))) {
      throw new LazyError("USAGE", `cache chunks of ${chunkBytes} bytes: expected a power of two from 4096 to 16777216`);
    }
    return new BlockCache(await SegmentPool.open(directory, options));
  }

  /** The same blob, kept on disk as it is read. `key` is the blob's digest. Closing the result closes `inner`. */
  source(key: string, inner: ByteSource): CachedSource {
    if (!KEY.test(key)) throw new LazyError("USAGE", `cache key ${JSON.stringify(key)} is not a sha256 or sha512 digest`);
    return new CachedSource(this.#pool, key, inner);
  }
}
