import { BlockCache } from "../cache/block-cache.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { convertLayers } from "./convert-layers.ts";
import type { ConvertOptions, ImageResult } from "./convert-options.ts";
import type { ImageFormat } from "./image-format.ts";
import type { ImageNode } from "./image-graph.ts";
import type { OutputImage } from "./output-image.ts";
import type { Semaphore } from "./semaphore.ts";
import { TargetConversion, type TargetRun } from "./target-conversion.ts";
import type { WorkDirectory } from "./work-directory.ts";

/** What the conversions of one run share. */
export interface ConversionRun {
  readonly source: ImageStore;
  readonly targets: readonly TargetRun[];
  readonly options: ConvertOptions;
  readonly scans: Semaphore;
  readonly signal: AbortSignal;
}

const CACHE = { capacityBytes: 1 << 30, chunkBytes: 256 << 10 };

/**
 * Converts one image for every target, out of one read of its layers, and stores the results, tagged if `isTop`. `image` is its number,
 * from 0. Returns a result for each target.
 */
export async function convertOne(
  run: ConversionRun,
  node: ImageNode,
  image: number,
  isTop: boolean,
  directory: WorkDirectory,
): Promise<ImageResult[]> {
  const { options, targets } = run;
  const conversions = targets.map((target) => new TargetConversion(target, node, image, directory));
  try {
    return await new ImageConversion(run, node, image, directory).convert(conversions, isTop);
  } finally {
    await Promise.all(conversions.map(async (conversion) => await conversion.close()));
    if (!options.keep && !options.dump) await directory.remove();
  }
}

class ImageConversion {
  readonly #run: ConversionRun;
  readonly #node: ImageNode;
  readonly #image: number;
  readonly #directory: WorkDirectory;

  constructor(run: ConversionRun, node: ImageNode, image: number, directory: WorkDirectory) {
    this.#run = run;
    this.#node = node;
    this.#image = image;
    this.#directory = directory;
  }

  async convert(conversions: readonly TargetConversion[], isTop: boolean): Promise<ImageResult[]> {
    const { observer } = this.#run.options;
    const results = await Promise.all(conversions.map(async (conversion) => await conversion.reuse(isTop, this.#dump)));
    const rest = conversions.filter((_, index) => !results[index]);
    if (rest.length > 0) {
      const converted = await this.#convert(rest, isTop);
      for (const [index, conversion] of conversions.entries()) results[index] ??= converted[rest.indexOf(conversion)];
    }
    const all = results.filter((result) => result !== undefined);
    for (const { outcome, converted } of all) observer.imageDone?.(this.#image, outcome, converted.digest);
    return all;
  }

  async #convert(conversions: readonly TargetConversion[], isTop: boolean): Promise<ImageResult[]> {
    const { source, options, scans, signal } = this.#run;
    const failure = new AbortController();
    const stopped = AbortSignal.any([signal, failure.signal]);
    await this.#directory.create();
    // What is read of layers that are in a destination already.
    const cache = this.#directory.inside("cache");
    try {
      const targets = await Promise.all(conversions.map(async (conversion) => await conversion.begin(stopped)));
      const layers = await convertLayers(this.#node, {
        source,
        targets,
        openCache: async () => {
          await cache.create();
          return await BlockCache.open(cache.path, CACHE);
        },
        base: options.base,
        threads: options.threads,
        scans,
        layerRead: (layer, bytes) => options.observer.layerRead?.({ image: this.#image, layer }, bytes),
        signal: AbortSignal.any(conversions.map((conversion) => conversion.signal)),
      });
      return await Promise.all(conversions.map(async (conversion, index) => await conversion.finish(layers[index], isTop, this.#dump)));
    } catch (error) {
      failure.abort(error);
      throw error;
    } finally {
      await cache.remove();
    }
  }

  readonly #dump = async (format: ImageFormat, { config, manifest }: OutputImage): Promise<void> => {
    const { options, targets } = this.#run;
    if (!options.dump) return;
    // Results of one run get names of their own.
    const suffix = targets.length > 1 ? `-${format}` : "";
    await this.#directory.dump(`config${suffix}.json`, config);
    await this.#directory.dump(`manifest${suffix}.json`, manifest);
  };
}
