import { rm } from "node:fs/promises";
import { makeDirectories } from "../bytes/file-directories.ts";
import { BlockCache } from "../cache/block-cache.ts";
import { messageOf } from "../errors.ts";
import { wholePath } from "./download-file.ts";
import { exists } from "./image-config-file.ts";

/** Beside the file that a layer is downloaded to: that one has to be written by one process alone, this cache may be shared. */
const BLOCKS_NAME = ".download.blocks";

/**
 * Caches of verified blocks in layers' directories. None is larger than its layer, so nothing is evicted; a cache goes away when its
 * layer's directory has all of the layer.
 */
export class LayerCaches {
  readonly #chunkBytes: number;
  readonly #notice: (message: string) => void;
  readonly #directories = new Set<string>();

  constructor(chunkBytes: number, notice: (message: string) => void) {
    this.#chunkBytes = chunkBytes;
    this.#notice = notice;
  }

  /** Undefined, and told of, where the disk does not allow one. */
  async open(directory: string): Promise<BlockCache | undefined> {
    const path = `${directory}/${BLOCKS_NAME}`;
    const onDiskFailure = (error: unknown): void =>
      this.#notice(`${path}: ${messageOf(error)}; what is not kept there is read from its place`);
    try {
      await makeDirectories(directory);
      const cache = await BlockCache.open(path, { capacityBytes: Infinity, chunkBytes: this.#chunkBytes, onDiskFailure });
      this.#directories.add(directory);
      return cache;
    } catch (error) {
      onDiskFailure(error);
      return undefined;
    }
  }

  /** Removes a directory's cache. Whoever has it open goes on with what is open, and without the rest. */
  async discard(directory: string): Promise<void> {
    await rm(`${directory}/${BLOCKS_NAME}`, { recursive: true, force: true }).catch((error: unknown) => this.#notice(messageOf(error)));
  }

  /** To be called when nothing is read through the caches any more. */
  async close(): Promise<void> {
    for (const directory of this.#directories) if (await exists(wholePath(directory))) await this.discard(directory);
    this.#directories.clear();
  }
}
