import { LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { hexOf, type Digest } from "../oci/digest.ts";
import { attestedDigest, withAttested } from "../oci/image-selection.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { formatPlatform } from "../oci/platform.ts";
import { SpoolMemory } from "./blob-spool.ts";
import { ClaimedLayers } from "./claimed-layers.ts";
import { checkLayers } from "./convert-layers.ts";
import type { ConvertOptions, ConvertResult, ConvertTarget, ImageResult } from "./convert-options.ts";
import { copyDocument } from "./copy-document.ts";
import { convertOne, type ConversionRun } from "./image-conversion.ts";
import type { ImageFormat } from "./image-format.ts";
import { imagesOf, readImageGraph, type GraphNode, type ImageNode, type IndexNode, type KeptNode } from "./image-graph.ts";
import { KnownLayers } from "./known-layers.ts";
import { layerOptionsOf, type LayerOptions } from "./layer-options.ts";
import { describe, outputEntry, outputIndex, OUTPUT_TYPES } from "./output-image.ts";
import { referredBy } from "./referred-by.ts";
import { ReferredLayers } from "./referred-layers.ts";
import { Semaphore } from "./semaphore.ts";
import type { TargetRun } from "./target-conversion.ts";
import { WorkDirectory } from "./work-directory.ts";

/** Uploads at a time. */
const UPLOADS = 4;
/** What blobs may take of memory together; what is beyond goes to disk ... */
const SPOOL_MEMORY_BYTES = 64 << 20;
/** ... and so does what comes while the process takes this much: it stays below 350 MB. */
const SPOOL_RESIDENT_BYTES = 272e6;

/**
 * Converts an image, or each image of an index, once for every target out of one read of its layers, and stores the results under the
 * targets' tags. No document is stored before all layers of its image are proven, and the tag moves last. The results are in the order
 * of the targets.
 */
export async function convertImage(
  source: ImageStore,
  from: ResolveTarget,
  targets: readonly ConvertTarget[],
  options: ConvertOptions,
): Promise<ConvertResult[]> {
  const graph = await readImageGraph(source, await source.resolve(from), options);
  for (const image of imagesOf(graph)) if (image.kind === "image") checkLayers(image);
  const directory = new WorkDirectory(options.directory);
  await directory.create();
  try {
    const layerOptions = await layerOptionsOf(targets, options);
    return await new Conversion(graph, source, targets, directory, layerOptions, options).convert(graph);
  } finally {
    if (!options.keep && !options.dump) await directory.remove();
  }
}

class Conversion {
  readonly #run: ConversionRun;
  readonly #directory: WorkDirectory;
  /** The graph's images, and thereby their numbers. */
  readonly #images: readonly (ImageNode | KeptNode)[];
  /** By image, then by target. */
  readonly #results: ImageResult[][] = [];
  readonly #slots: Semaphore;
  readonly #failure = new AbortController();

  constructor(
    graph: GraphNode,
    source: ImageStore,
    targets: readonly ConvertTarget[],
    directory: WorkDirectory,
    layerOptions: readonly LayerOptions[],
    options: ConvertOptions,
  ) {
    const { family, upload, observer, concurrency, imagesAtOnce } = options;
    this.#images = imagesOf(graph);
    this.#directory = directory;
    this.#slots = new Semaphore(imagesAtOnce);
    const memory = new SpoolMemory(SPOOL_MEMORY_BYTES, SPOOL_RESIDENT_BYTES);
    const uploads = new Semaphore(UPLOADS);
    const signal = AbortSignal.any([options.signal, this.#failure.signal]);
    const runs = targets.map((target, index): TargetRun => {
      const { destination, known, dataElsewhere } = target;
      return {
        target,
        options,
        layerOptions: layerOptions[index],
        known: new KnownLayers({
          destination,
          known,
          layerOptions: layerOptions[index],
          family,
          purpose: upload ? "convert" : "read",
          warning: (message) => observer.warning?.(message),
        }),
        claimed: new ClaimedLayers(),
        memory,
        uploads,
        // Of images that are converted already, any can be turboOCI.
        referred: dataElsewhere ? undefined : new ReferredLayers(source, target),
        signal,
      };
    });
    this.#run = { source, targets: runs, options, scans: new Semaphore(concurrency), signal };
  }

  async convert(graph: GraphNode): Promise<ConvertResult[]> {
    const descriptors = await this.#node(graph, true);
    return this.#run.targets.map(({ target }, index) => {
      return { format: target.format, descriptor: descriptors[index], images: this.#results.map((results) => results[index]) };
    });
  }

  /** What became of a document, by target. */
  async #node(node: GraphNode, isTop: boolean): Promise<Descriptor[]> {
    if (node.kind === "index") return await this.#index(node, isTop);
    const release = await this.#slots.acquire();
    try {
      this.#run.signal.throwIfAborted();
      return await (node.kind === "image" ? this.#image(node, isTop) : this.#kept(node, isTop));
    } catch (error) {
      this.#failure.abort(error);
      throw error;
    } finally {
      release();
    }
  }

  async #index(node: IndexNode, isTop: boolean): Promise<Descriptor[]> {
    const converted = await allOrFirstError(node.entries.map(async (entry) => await this.#node(entry, false)));
    const stored: Descriptor[] = [];
    for (const [index, run] of this.#run.targets.entries()) {
      const entries = converted.map((descriptors) => descriptors[index]);
      stored.push(await this.#targetIndex(node, run, entries, isTop));
    }
    return stored;
  }

  async #targetIndex(node: IndexNode, run: TargetRun, converted: readonly Descriptor[], isTop: boolean): Promise<Descriptor> {
    const { family, dump, referrer, upload } = run.options;
    const { format, destination, tag } = run.target;
    const of = new Map<Digest, Digest>(node.entries.map((entry, at) => [entry.descriptor.digest, converted[at].digest]));
    const entries = node.entries.map((entry, at) => {
      const output = outputEntry(entry.descriptor, converted[at]);
      const attested = entry.kind === "kept" && entry.reason === "attestation" ? attestedDigest(entry.descriptor) : undefined;
      const digest = attested && of.get(attested);
      return digest ? withAttested(output, digest) : output;
    });
    // An index keeps its own type unless OCI types are asked for, as the drop-in's users expect.
    const mediaType = family === "oci" ? OUTPUT_TYPES.oci.index : node.descriptor.mediaType;
    const bytes = outputIndex(node.index, mediaType, entries, { format, subject: referrer ? node.descriptor : undefined });
    if (dump) await this.#directory.dump(this.#indexName(node, format, isTop), bytes);
    run.signal.throwIfAborted();
    if (!upload) return describe(mediaType, bytes);
    if (isTop) await run.referred?.keep(run.signal);
    return await destination.putManifest(bytes, mediaType, { tag: isTop ? tag : undefined, signal: run.signal });
  }

  #indexName({ descriptor }: IndexNode, format: ImageFormat, isTop: boolean): string {
    const suffix = this.#run.targets.length > 1 ? `-${format}` : "";
    return isTop ? `index${suffix}.json` : `index${suffix}-${hexOf(descriptor.digest)}.json`;
  }

  async #image(node: ImageNode, isTop: boolean): Promise<Descriptor[]> {
    const image = this.#start(node);
    const { digest, platform } = node.descriptor;
    // `<n>-<platform>-<digest>`, with the platform empty for a single image.
    const readable = platform ? formatPlatform(platform).replaceAll(/[^A-Za-z0-9._-]/g, "_") : "";
    const directory = this.#directory.inside(`${image + 1}-${readable}-${hexOf(digest)}`);
    const results = await convertOne(this.#run, node, image, isTop, directory);
    this.#results[image] = results;
    return results.map(({ converted }) => converted);
  }

  async #kept(node: KeptNode, isTop: boolean): Promise<Descriptor[]> {
    const { source, targets, options, signal } = this.#run;
    const { descriptor, reason, name } = node;
    if (reason === "converted") {
      const image = this.#start(node);
      options.observer.warning?.(`${name}: is converted already; it stays as it is`);
      const { platform } = descriptor;
      this.#results[image] = targets.map(() => ({ source: descriptor, converted: descriptor, platform, outcome: "copied", layers: [] }));
      options.observer.imageDone?.(image, "copied", descriptor.digest);
    } else if (reason === "artifact") {
      options.observer.warning?.(`${name}: is no image; it stays as it is`);
    }
    const data = reason === "converted" && options.upload ? await this.#referredBy(node) : [];
    for (const { target, referred } of targets) {
      const { destination, mountFrom } = target;
      const tag = isTop ? target.tag : undefined;
      const isThere = source.name === destination.name && tag === undefined;
      await referred?.store(data, signal);
      if (isTop && options.upload) await referred?.keep(signal);
      if (options.upload && !isThere) await copyDocument(source, destination, node, { mountFrom, tag, signal });
    }
    return targets.map(() => descriptor);
  }

  /** What an image that is converted already refers to, as far as the source has it. */
  async #referredBy({ manifest, name }: KeptNode): Promise<{ readonly data: Descriptor }[]> {
    const { source, options, targets } = this.#run;
    if (targets.every(({ referred }) => referred === undefined)) return [];
    try {
      return (await referredBy(manifest?.layers ?? [], source)).map((data) => ({ data }));
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      options.observer.warning?.(`${name}: what it refers to stays where it is: ${error.message}`);
      return [];
    }
  }

  /** Announces an image and gives its number. */
  #start(node: ImageNode | KeptNode): number {
    const image = this.#images.indexOf(node);
    const { targets, options } = this.#run;
    const layers = (node.kind === "image" ? node.manifest.layers : []).map(({ digest, size }) => ({ digest, bytes: size }));
    options.observer.imageStarted?.({ image, name: node.name, platform: node.descriptor.platform, layers, results: targets.length });
    return image;
  }
}

/** Waits for all, so that nothing goes on in the background, before it throws the error that came first. */
async function allOrFirstError<T>(work: readonly Promise<T>[]): Promise<T[]> {
  try {
    return await Promise.all(work);
  } finally {
    await Promise.allSettled(work);
  }
}
