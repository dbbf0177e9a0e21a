import { join } from "node:path";
import { MemorySource } from "../bytes/source.ts";
import { BlobSpool, type SpoolMemory } from "./blob-spool.ts";
import { baseLayerOf } from "./base-layer.ts";
import type { Claim, ClaimedLayers } from "./claimed-layers.ts";
import { openSpools } from "./convert-layers.ts";
import type { LayerOutcome } from "./convert-observer.ts";
import { ConvertedLayer } from "./converted-layer.ts";
import type { ConvertOptions, ConvertTarget, ImageResult } from "./convert-options.ts";
import type { ImageFormat } from "./image-format.ts";
import type { ImageNode } from "./image-graph.ts";
import type { KnownChain, KnownLayers } from "./known-layers.ts";
import { findKnownManifest, manifestFingerprint, outputOf } from "./known-manifest.ts";
import type { LayersTarget } from "./layer-builder.ts";
import { wantedLayers, type WantedLayer } from "./layer-identity.ts";
import type { LayerOptions } from "./layer-options.ts";
import { LayerUploads } from "./layer-uploads.ts";
import type { OutputImage, OutputLayer } from "./output-image.ts";
import type { ReferredLayers } from "./referred-layers.ts";
import type { Semaphore } from "./semaphore.ts";
import type { WorkDirectory } from "./work-directory.ts";

/** What the images of one run share on their way to one target. */
export interface TargetRun {
  readonly target: ConvertTarget;
  readonly options: ConvertOptions;
  readonly layerOptions: LayerOptions;
  readonly known: KnownLayers;
  readonly claimed: ClaimedLayers;
  readonly memory: SpoolMemory;
  readonly uploads: Semaphore;
  /** Stores what turboOCI layers refer to; undefined for a target whose layers are complete in themselves. */
  readonly referred: ReferredLayers | undefined;
  readonly signal: AbortSignal;
}

/** Leaves documents for the user to find, if they are wanted. */
type Dump = (format: ImageFormat, output: OutputImage) => Promise<void>;

/** A blob of this size is worth sending before the layers above it are complete. */
const EARLY_UPLOAD_BYTES = 8 << 20;

/** One image on its way to one target: what is known of it, its layers' blobs, its documents. */
export class TargetConversion {
  readonly #run: TargetRun;
  readonly #node: ImageNode;
  /** The image's number in the run. */
  readonly #image: number;
  readonly #wanted: readonly WantedLayer[];
  readonly #claim: Claim;
  readonly #spools: readonly BlobSpool[];
  /** Of layers that were compressed anew. */
  readonly #dataSpools: BlobSpool[] = [];
  readonly #directory: WorkDirectory;
  readonly #outcomes: LayerOutcome[] = [];
  #chain: KnownChain | undefined;
  #uploads: LayerUploads | undefined;

  constructor(run: TargetRun, node: ImageNode, image: number, directory: WorkDirectory) {
    this.#run = run;
    this.#node = node;
    this.#image = image;
    this.#directory = directory;
    const { format } = run.target;
    this.#wanted = wantedLayers(format, node);
    this.#claim = run.claimed.claim(this.#wanted.map(({ key }) => key));
    this.#spools = openSpools(node, format, directory.path, { keep: run.options.keep, memory: run.memory });
  }

  /** The whole result of an earlier run, under the target's tag now; undefined if it has to be made. */
  async reuse(isTop: boolean, dump: Dump): Promise<ImageResult | undefined> {
    const { options, target, known, layerOptions, signal } = this.#run;
    // Whoever wants to keep the blobs wants all of them.
    if (options.keep) return undefined;
    const image = await findKnownManifest(this.#node, target, known, layerOptions, options);
    if (image === undefined) return undefined;
    await dump(target.format, image.output);
    if (options.upload) {
      await this.#run.referred?.store(image.layers, signal);
      if (isTop) await this.#putManifest(image.output, isTop);
    }
    return this.#result("reused", image.output, []);
  }

  /** Looks for layers that need not be converted. `failed` aborts the conversion of the others. */
  async begin(failed: AbortSignal): Promise<LayersTarget> {
    const { target, options, layerOptions } = this.#run;
    const chain = (this.#chain = await this.#findKnown());
    for (const [index, layer] of chain.layers.entries()) {
      if (layer === undefined) continue;
      this.#layerDone(index, layer, layer.outcome);
      this.#claim.stored(index, layer, chain.fingerprint);
    }
    const uploads = (this.#uploads = this.#openUploads(chain, failed));
    return {
      options: layerOptions,
      family: options.family,
      wanted: this.#wanted,
      known: chain.layers.map((layer) => layer && ConvertedLayer.stored(layer)),
      destination: target.destination,
      spools: this.#spools,
      openDataSpool: options.recompress ? (index) => this.#openDataSpool(index) : undefined,
      layerConverted: (index, layer) => {
        options.observer.layerConverted?.({ image: this.#image, layer: index }, layer.size);
        if (options.upload && layer.size > EARLY_UPLOAD_BYTES) uploads.start(index, layer);
      },
    };
  }

  /** Aborted when a layer cannot be stored. */
  get signal(): AbortSignal {
    return this.#uploads?.signal ?? this.#run.signal;
  }

  /** Makes the image's documents, and stores all that is not stored yet; the manifest comes last. */
  async finish(layers: readonly ConvertedLayer[], isTop: boolean, dump: Dump): Promise<ImageResult> {
    const { options, layerOptions, known, signal } = this.#run;
    const { destination, format } = this.#run.target;
    const { base, family } = options;
    const below = base ? [baseLayerOf(base, family, layerOptions.filesystem)] : [];
    if (options.upload) {
      const uploads = this.#uploads!;
      for (const [index, layer] of layers.entries()) uploads.start(index, layer);
      if (base) await destination.putBlob(below[0].descriptor, base.content, { signal: uploads.signal });
      await this.#run.referred?.store(layers, uploads.signal);
      await uploads.finish();
    }
    const own: OutputLayer[] = [];
    for (const layer of layers) own.push(await layer.output());
    const output = outputOf(this.#node, [...below, ...own], format, options);
    await dump(format, output);
    if (!options.upload) {
      for (const [index, layer] of layers.entries()) if (layer.content) this.#layerDone(index, own[index], "kept");
      return this.#result("converted", output, own);
    }
    await destination.putBlob(output.configDescriptor, new MemorySource(output.config, "config"), { signal });
    await this.#putManifest(output, isTop);
    if (this.#chain?.fingerprint === layerOptions.fingerprint) {
      await known.rememberManifest(this.#node.descriptor.digest, manifestFingerprint(layerOptions, options), output.descriptor);
    }
    return this.#result("converted", output, own);
  }

  /** Ends what is under way and frees scratch. */
  async close(): Promise<void> {
    this.#claim.release();
    await this.#uploads?.close();
    await Promise.all([...this.#spools, ...this.#dataSpools].map(async (spool) => await spool.close()));
  }

  async #putManifest({ manifest, descriptor }: OutputImage, isTop: boolean): Promise<void> {
    const { target, referred, signal } = this.#run;
    const tag = isTop ? target.tag : undefined;
    if (isTop) await referred?.keep(signal);
    await target.destination.putManifest(manifest, descriptor.mediaType, { tag, signal });
  }

  #openDataSpool(index: number): BlobSpool {
    const { digest } = this.#wanted[index].source;
    const path = join(this.#directory.path, `data-${String(index).padStart(4, "0")}_${digest}`, "layer.tar.gz");
    const spool = new BlobSpool({ path, keep: this.#run.options.keep, memory: this.#run.memory });
    this.#dataSpools.push(spool);
    return spool;
  }

  async #findKnown(): Promise<KnownChain> {
    const { known, layerOptions, options } = this.#run;
    if (options.keep) return { layers: this.#wanted.map(() => undefined), fingerprint: layerOptions.fingerprint };
    return await known.find(this.#wanted, await this.#claim.below());
  }

  #openUploads({ layers: inDestination, fingerprint }: KnownChain, signal: AbortSignal): LayerUploads {
    const { target, uploads, options, known } = this.#run;
    return new LayerUploads({
      destination: target.destination,
      slots: uploads,
      identity: (layer) => `${this.#wanted[layer].key} ${fingerprint}`,
      layerSent: (layer, bytes) => options.observer.layerSent?.({ image: this.#image, layer }, bytes),
      layerStored: async (index, layer, result) => {
        this.#layerDone(index, layer, result);
        await known.remember(this.#wanted[index], fingerprint, layer);
        this.#claim.stored(index, { ...layer, outcome: "reused" }, fingerprint);
        // Scratch holds what is underway. Below a known layer, the blob may be read once more.
        if (inDestination.every((other, above) => other === undefined || above < index)) await this.#spools[index].close();
      },
      signal,
    });
  }

  #layerDone(index: number, { descriptor }: OutputLayer, outcome: LayerOutcome): void {
    this.#outcomes[index] = outcome;
    this.#run.options.observer.layerDone?.({ image: this.#image, layer: index }, outcome, descriptor.size);
  }

  #result(outcome: "converted" | "reused", output: OutputImage, layers: readonly OutputLayer[]): ImageResult {
    const { descriptor: source, manifest } = this.#node;
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
