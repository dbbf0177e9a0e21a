import type { Descriptor } from "../oci/descriptor.ts";
import { hexOf, type Digest } from "../oci/digest.ts";
import { attestedDigest, withAttested } from "../oci/image-selection.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { formatPlatform } from "../oci/platform.ts";
import { SpoolMemory } from "./blob-spool.ts";
import { ClaimedLayers } from "./claimed-layers.ts";
import { checkLayers } from "./convert-layers.ts";
import type { ConvertOptions, ConvertResult, ImageResult } from "./convert-options.ts";
import { copyDocument } from "./copy-document.ts";
import { convertOne, type ConversionRun } from "./image-conversion.ts";
import { imagesOf, readImageGraph, type GraphNode, type ImageNode, type IndexNode, type KeptNode } from "./image-graph.ts";
import { KnownLayers } from "./known-layers.ts";
import { layerOptions, type LayerOptions } from "./layer-options.ts";
import { describe, outputEntry, outputIndex, OUTPUT_TYPES } from "./output-image.ts";
import { Semaphore } from "./semaphore.ts";
import { WorkDirectory } from "./work-directory.ts";

/** Uploads at a time. */
const UPLOADS = 4;
/** What blobs may take of memory together; what is beyond goes to disk. */
const SPOOL_MEMORY_BYTES = 32 << 20;

/**
 * Converts an image, or each image of an index, and stores the result under a tag. No document is stored before all layers of its
 * image are proven, and the tag moves last.
 */
export async function convertImage(
  source: ImageStore,
  from: ResolveTarget,
  destination: ImageStore,
  tag: string | undefined,
  options: ConvertOptions,
): Promise<ConvertResult> {
  const graph = await readImageGraph(source, await source.resolve(from), options);
  for (const image of imagesOf(graph)) if (image.kind === "image") checkLayers(image);
  const directory = new WorkDirectory(options.directory);
  await directory.create();
  try {
    const layers = await layerOptions(options.virtualSize, options.base);
    return await new Conversion(graph, source, destination, directory, layers, options).convert(graph, tag);
  } finally {
    if (!options.keep && !options.dump) await directory.remove();
  }
}

class Conversion {
  readonly #run: ConversionRun;
  readonly #directory: WorkDirectory;
  /** The graph's images, and thereby their numbers. */
  readonly #images: readonly (ImageNode | KeptNode)[];
  readonly #results: ImageResult[] = [];
  readonly #slots: Semaphore;
  readonly #failure = new AbortController();

  constructor(
    graph: GraphNode,
    source: ImageStore,
    destination: ImageStore,
    directory: WorkDirectory,
    layers: LayerOptions,
    options: ConvertOptions,
  ) {
    const { known, family, upload, observer, concurrency, imagesAtOnce } = options;
    this.#images = imagesOf(graph);
    this.#directory = directory;
    this.#slots = new Semaphore(imagesAtOnce);
    this.#run = {
      source,
      destination,
      options,
      layerOptions: layers,
      known: new KnownLayers({
        destination,
        known,
        layerOptions: layers,
        family,
        purpose: upload ? "convert" : "read",
        warning: (message) => observer.warning?.(message),
      }),
      claimed: new ClaimedLayers(),
      memory: new SpoolMemory(SPOOL_MEMORY_BYTES),
      scans: new Semaphore(concurrency),
      uploads: new Semaphore(UPLOADS),
      signal: AbortSignal.any([options.signal, this.#failure.signal]),
    };
  }

  async convert(graph: GraphNode, tag: string | undefined): Promise<ConvertResult> {
    const descriptor = await this.#node(graph, tag, true);
    return { descriptor, images: this.#results };
  }

  async #node(node: GraphNode, tag: string | undefined, isTop: boolean): Promise<Descriptor> {
    if (node.kind === "index") return await this.#index(node, tag, isTop);
    const release = await this.#slots.acquire();
    try {
      this.#run.signal.throwIfAborted();
      return await (node.kind === "image" ? this.#image(node, tag) : this.#kept(node, tag));
    } catch (error) {
      this.#failure.abort(error);
      throw error;
    } finally {
      release();
    }
  }

  async #index(node: IndexNode, tag: string | undefined, isTop: boolean): Promise<Descriptor> {
    const { family, dump, referrer } = this.#run.options;
    const converted = await allOrFirstError(node.entries.map(async (entry) => await this.#node(entry, undefined, false)));
    const of = new Map<Digest, Digest>(node.entries.map((entry, at) => [entry.descriptor.digest, converted[at].digest]));
    const entries = node.entries.map((entry, at) => {
      const output = outputEntry(entry.descriptor, converted[at]);
      const attested = entry.kind === "kept" && entry.reason === "attestation" ? attestedDigest(entry.descriptor) : undefined;
      const digest = attested && of.get(attested);
      return digest ? withAttested(output, digest) : output;
    });
    // An index keeps its own type unless OCI types are asked for, as the drop-in's users expect.
    const mediaType = family === "oci" ? OUTPUT_TYPES.oci.index : node.descriptor.mediaType;
    const bytes = outputIndex(node.index, mediaType, entries, referrer ? node.descriptor : undefined);
    if (dump) await this.#directory.dump(isTop ? "index.json" : `index-${hexOf(node.descriptor.digest)}.json`, bytes);
    return await this.#putManifest(bytes, mediaType, tag);
  }

  async #image(node: ImageNode, tag: string | undefined): Promise<Descriptor> {
    const image = this.#start(node);
    const { digest, platform } = node.descriptor;
    // `<n>-<platform>-<digest>`, with the platform empty for a single image.
    const readable = platform ? formatPlatform(platform).replaceAll(/[^A-Za-z0-9._-]/g, "_") : "";
    const directory = this.#directory.inside(`${image + 1}-${readable}-${hexOf(digest)}`);
    const result = await convertOne(this.#run, node, image, tag, directory);
    this.#results[image] = result;
    return result.converted;
  }

  async #kept(node: KeptNode, tag: string | undefined): Promise<Descriptor> {
    const { source, destination, options, signal } = this.#run;
    const { descriptor, reason, name } = node;
    if (reason === "converted") {
      const image = this.#start(node);
      options.observer.warning?.(`${name}: is converted already; it stays as it is`);
      this.#results[image] = { source: descriptor, converted: descriptor, platform: descriptor.platform, outcome: "copied", layers: [] };
      options.observer.imageDone?.(image, "copied", descriptor.digest);
    } else if (reason === "artifact") {
      options.observer.warning?.(`${name}: is no image; it stays as it is`);
    }
    const isThere = source.name === destination.name && tag === undefined;
    if (options.upload && !isThere) await copyDocument(source, destination, node, { mountFrom: options.mountFrom, tag, signal });
    return descriptor;
  }

  /** Announces an image and gives its number. */
  #start(node: ImageNode | KeptNode): number {
    const image = this.#images.indexOf(node);
    const layers = (node.kind === "image" ? node.manifest.layers : []).map(({ digest, size }) => ({ digest, bytes: size }));
    this.#run.options.observer.imageStarted?.({ image, name: node.name, platform: node.descriptor.platform, layers });
    return image;
  }

  async #putManifest(bytes: Uint8Array, mediaType: string, tag: string | undefined): Promise<Descriptor> {
    const { destination, options, signal } = this.#run;
    signal.throwIfAborted();
    if (!options.upload) return describe(mediaType, bytes);
    return await destination.putManifest(bytes, mediaType, { tag, signal });
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
