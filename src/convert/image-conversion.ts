import { BlockCache } from "../cache/block-cache.ts";
import { MemorySource } from "../bytes/source.ts";
import { chainIds } from "../oci/chain-id.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { BlobSpool, SpoolMemory } from "./blob-spool.ts";
import type { Claim, ClaimedLayers } from "./claimed-layers.ts";
import { convertLayers, openSpools, type ConvertedLayer } from "./convert-layers.ts";
import type { LayerOutcome } from "./convert-observer.ts";
import type { ConvertOptions, ImageResult } from "./convert-options.ts";
import type { ImageNode } from "./image-graph.ts";
import type { KnownChain, KnownLayers } from "./known-layers.ts";
import { findKnownManifest, manifestFingerprint, outputOf } from "./known-manifest.ts";
import type { LayerOptions } from "./layer-options.ts";
import { LayerUploads } from "./layer-uploads.ts";
import { layerDescriptor, type OutputImage } from "./output-image.ts";
import type { Semaphore } from "./semaphore.ts";
import type { WorkDirectory } from "./work-directory.ts";

/** What the conversions of one run share. */
export interface ConversionRun {
  readonly source: ImageStore;
  readonly destination: ImageStore;
  readonly options: ConvertOptions;
  readonly layerOptions: LayerOptions;
  readonly known: KnownLayers;
  readonly claimed: ClaimedLayers;
  readonly memory: SpoolMemory;
  readonly scans: Semaphore;
  readonly uploads: Semaphore;
  readonly signal: AbortSignal;
}

/** A blob of this size is worth sending before the layers above it are complete. */
const EARLY_UPLOAD_BYTES = 8 << 20;
const CACHE = { capacityBytes: 1 << 30, chunkBytes: 256 << 10 };

/** Converts one image and stores it, under a tag if there is one. `image` is its number, from 0. */
export async function convertOne(
  run: ConversionRun,
  node: ImageNode,
  image: number,
  tag: string | undefined,
  directory: WorkDirectory,
): Promise<ImageResult> {
  const claim = run.claimed.claim(chainIds(node.config.rootfs.diff_ids));
  try {
    return await new ImageConversion(run, node, image, directory, claim).convert(tag);
  } finally {
    claim.release();
  }
}

class ImageConversion {
  readonly #run: ConversionRun;
  readonly #node: ImageNode;
  readonly #image: number;
  readonly #directory: WorkDirectory;
  readonly #claim: Claim;
  readonly #chain: readonly Digest[];
  /** What is read of layers that are in the destination already. */
  readonly #cache: WorkDirectory;
  readonly #outcomes: LayerOutcome[] = [];

  constructor(run: ConversionRun, node: ImageNode, image: number, directory: WorkDirectory, claim: Claim) {
    this.#run = run;
    this.#node = node;
    this.#image = image;
    this.#directory = directory;
    this.#claim = claim;
    this.#chain = chainIds(node.config.rootfs.diff_ids);
    this.#cache = directory.inside("cache");
  }

  async convert(tag: string | undefined): Promise<ImageResult> {
    const { options, destination, known, layerOptions } = this.#run;
    const { keep, dump } = options;
    // Whoever wants to keep the blobs wants all of them.
    const before = keep ? undefined : await findKnownManifest(this.#node, destination, known, layerOptions, options);
    if (before) return await this.#reuse(before, tag);
    try {
      await this.#directory.create();
      return await this.#convert(tag);
    } finally {
      if (!keep && !dump) await this.#directory.remove();
    }
  }

  async #reuse(known: OutputImage, tag: string | undefined): Promise<ImageResult> {
    const { destination, options, signal } = this.#run;
    await this.#dump(known);
    if (options.upload && tag !== undefined) await destination.putManifest(known.manifest, known.descriptor.mediaType, { tag, signal });
    return this.#result("reused", known, []);
  }

  async #convert(tag: string | undefined): Promise<ImageResult> {
    const { options, layerOptions, destination, known: database, signal } = this.#run;
    const chain = await this.#findKnown();
    for (const [index, layer] of chain.layers.entries()) {
      if (layer === undefined) continue;
      this.#layerDone(index, layer.descriptor, layer.outcome);
      this.#claim.stored(index, layer, chain.fingerprint);
    }
    const spools = openSpools(this.#node, this.#directory.path, { keep: options.keep, memory: this.#run.memory });
    const uploads = this.#openUploads(chain, spools);
    try {
      const layers = await this.#convertLayers(spools, chain, uploads);
      const { base, family } = options;
      const below = base ? [layerDescriptor(base.blob.digest, base.blob.content.size, family)] : [];
      const output = outputOf(this.#node, [...below, ...layers.map((layer) => layer.descriptor)], options);
      await this.#dump(output);
      if (options.upload) {
        for (const [index, layer] of layers.entries()) uploads.start(index, layer);
        if (base) await destination.putBlob(below[0], base.blob.content, { signal: uploads.signal });
        await uploads.finish();
        await destination.putBlob(output.configDescriptor, new MemorySource(output.config, "config"), { signal });
        await destination.putManifest(output.manifest, output.descriptor.mediaType, { tag, signal });
        if (chain.fingerprint === layerOptions.fingerprint) {
          await database.rememberManifest(this.#node.descriptor.digest, manifestFingerprint(layerOptions, options), output.descriptor);
        }
      } else {
        for (const [index, { descriptor, content }] of layers.entries()) if (content) this.#layerDone(index, descriptor, "kept");
      }
      return this.#result("converted", output, layers);
    } finally {
      await uploads.close();
      await this.#cache.remove();
      await Promise.all(spools.map(async (spool) => await spool.close()));
    }
  }

  async #findKnown(): Promise<KnownChain> {
    const { known, layerOptions, options } = this.#run;
    if (options.keep) return { layers: this.#chain.map(() => undefined), fingerprint: layerOptions.fingerprint };
    return await known.find(this.#chain, await this.#claim.below());
  }

  #openUploads({ layers: inDestination, fingerprint }: KnownChain, spools: readonly BlobSpool[]): LayerUploads {
    const { destination, uploads, options, known, signal } = this.#run;
    return new LayerUploads({
      destination,
      slots: uploads,
      layerSent: (layer, bytes) => options.observer.layerSent?.({ image: this.#image, layer }, bytes),
      layerStored: async (index, descriptor, result) => {
        this.#layerDone(index, descriptor, result);
        await known.remember(this.#chain[index], fingerprint, descriptor);
        this.#claim.stored(index, { descriptor, outcome: "reused" }, fingerprint);
        // Scratch holds what is underway. Below a known layer, the blob may be read once more.
        if (inDestination.every((layer, above) => layer === undefined || above < index)) await spools[index].close();
      },
      signal,
    });
  }

  async #convertLayers(spools: readonly BlobSpool[], chain: KnownChain, uploads: LayerUploads): Promise<ConvertedLayer[]> {
    const { source, destination, options, layerOptions, scans } = this.#run;
    const { family, base, threads, observer, upload } = options;
    return await convertLayers(this.#node, spools, {
      source,
      destination,
      chain: this.#chain,
      known: chain.layers.map((layer) => layer?.descriptor),
      openCache: async () => {
        await this.#cache.create();
        return await BlockCache.open(this.#cache.path, CACHE);
      },
      virtualSize: layerOptions.virtualSize,
      family,
      base,
      threads,
      scans,
      layerRead: (layer, bytes) => observer.layerRead?.({ image: this.#image, layer }, bytes),
      layerConverted: (index, layer) => {
        observer.layerConverted?.({ image: this.#image, layer: index }, layer.descriptor.size);
        if (upload && layer.descriptor.size > EARLY_UPLOAD_BYTES) uploads.start(index, layer);
      },
      signal: uploads.signal,
    });
  }

  #layerDone(index: number, { size }: Descriptor, outcome: LayerOutcome): void {
    this.#outcomes[index] = outcome;
    this.#run.options.observer.layerDone?.({ image: this.#image, layer: index }, outcome, size);
  }

  async #dump(output: OutputImage): Promise<void> {
    if (!this.#run.options.dump) return;
    await this.#directory.dump("config.json", output.config);
    await this.#directory.dump("manifest.json", output.manifest);
  }

  #result(outcome: "converted" | "reused", output: OutputImage, layers: readonly ConvertedLayer[]): ImageResult {
    const { descriptor: source, manifest } = this.#node;
    this.#run.options.observer.imageDone?.(this.#image, outcome, output.descriptor.digest);
    return {
      source,
      converted: output.descriptor,
      platform: source.platform,
      outcome,
      layers: layers.map(({ descriptor }, index) => ({
        source: manifest.layers[index],
        converted: descriptor,
        outcome: this.#outcomes[index],
      })),
    };
  }
}
