import { MemorySource } from "../bytes/source.ts";
import type { CompressBlocks } from "../compression/block-codec.ts";
import { LazyError, unsupported } from "../errors.ts";
import { parseConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, hexOf, type Digest } from "../oci/digest.ts";
import type { ImageStore, ResolvedDocument, ResolveTarget } from "../oci/image-store.ts";
import { isAttestation } from "../oci/image-selection.ts";
import { parseIndex, type ImageIndex } from "../oci/index.ts";
import { encodeJson } from "../oci/json.ts";
import { parseManifest, type Manifest } from "../oci/manifest.ts";
import { documentKind, type MediaTypeFamily } from "../oci/media-types.ts";
import { formatPlatform, samePlatform, type Platform } from "../oci/platform.ts";
import type { BaseLayer } from "./base-layer.ts";
import { convertManifest, type ConvertedManifest } from "./convert-manifest.ts";
import type { ConvertObserver } from "./convert-observer.ts";
import { OUTPUT_TYPES } from "./output-image.ts";
import { Semaphore } from "./semaphore.ts";
import { WorkDirectory } from "./work-directory.ts";

export interface ConvertOptions {
  /** Size of the device in bytes. */
  readonly virtualSize: number;
  readonly family: MediaTypeFamily;
  /** Of an index, only the images for these; all when empty. */
  readonly platforms: readonly Platform[];
  readonly base?: BaseLayer | undefined;
  /** Where temporary data goes; made if missing, and removed again if it was. */
  readonly directory: string;
  /** Leave the blobs behind, each in a directory of its own. */
  readonly keep: boolean;
  /** Leave manifests and configs behind. */
  readonly dump: boolean;
  /** Do everything but store the result. */
  readonly dryRun: boolean;
  readonly compress: CompressBlocks;
  /** Layers that are read at the same time. */
  readonly concurrency: number;
  readonly observer: ConvertObserver;
  readonly signal: AbortSignal;
}

export interface ConvertResult {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Images converted: more than one when the source is an index. */
  readonly images: number;
}

const MAX_INDEX_DEPTH = 4;
/** Uploads of one image at a time. */
const UPLOADS = 4;

/**
 * Converts an image, or each image of an index, and stores the result under a tag. Nothing is stored before all layers of an
 * image are proven, and the tag moves last.
 */
export async function convertImage(
  source: ImageStore,
  from: ResolveTarget,
  destination: ImageStore,
  tag: string | undefined,
  options: ConvertOptions,
): Promise<ConvertResult> {
  const top = await source.resolve(from);
  const directory = new WorkDirectory(options.directory);
  await directory.create();
  try {
    return await new Conversion(source, destination, directory, options).convert(top, tag);
  } finally {
    if (!options.keep && !options.dump) await directory.remove();
  }
}

class Conversion {
  readonly #source: ImageStore;
  readonly #destination: ImageStore;
  readonly #directory: WorkDirectory;
  readonly #options: ConvertOptions;
  readonly #scans: Semaphore;
  #images = 0;

  constructor(source: ImageStore, destination: ImageStore, directory: WorkDirectory, options: ConvertOptions) {
    this.#source = source;
    this.#destination = destination;
    this.#directory = directory;
    this.#options = options;
    this.#scans = new Semaphore(options.concurrency);
  }

  async convert(top: ResolvedDocument, tag: string | undefined): Promise<ConvertResult> {
    const descriptor = await this.#document(top, undefined, tag, 0);
    return { digest: descriptor.digest, mediaType: descriptor.mediaType, images: this.#images };
  }

  async #document(document: ResolvedDocument, platform: Platform | undefined, tag: string | undefined, depth: number): Promise<Descriptor> {
    const { mediaType, digest } = document.descriptor;
    const name = `${this.#source.name}@${digest}`;
    const kind = documentKind(mediaType);
    if (kind === "manifest") {
      const manifest = parseManifest(document.bytes, mediaType, name);
      if (depth === 0) await this.#checkPlatform(manifest, name);
      return await this.#image(document, manifest, name, platform, tag);
    }
    if (kind !== "index") throw unsupported(`${name}: media type ${mediaType} is neither an image nor an index`);
    if (depth >= MAX_INDEX_DEPTH) throw unsupported(`${name}: indexes are nested more than ${MAX_INDEX_DEPTH} deep`);
    return await this.#index(parseIndex(document.bytes, mediaType, name), name, mediaType, tag, depth);
  }

  async #index(index: ImageIndex, name: string, sourceType: string, tag: string | undefined, depth: number): Promise<Descriptor> {
    const { family, dump, dryRun } = this.#options;
    const entries: Descriptor[] = [];
    for (const entry of this.#selected(index, name)) {
      const bytes = await this.#source.manifest(entry);
      const child = await this.#document({ descriptor: entry, bytes }, entry.platform, undefined, depth + 1);
      entries.push({ ...entry, mediaType: child.mediaType, digest: child.digest, size: child.size });
    }
    // An index keeps its own type unless OCI types are asked for, as the drop-in's users expect.
    const mediaType = family === "oci" ? OUTPUT_TYPES.oci.index : sourceType;
    const { schemaVersion, mediaType: _type, artifactType, manifests: _manifests, subject, annotations, ...others } = index;
    const bytes = encodeJson({
      schemaVersion,
      mediaType,
      ...(artifactType !== undefined && { artifactType }),
      manifests: entries,
      ...(subject !== undefined && { subject }),
      ...(annotations !== undefined && { annotations }),
      ...others,
    });
    if (dump) await this.#directory.dump("index.json", bytes);
    return await this.#putManifest(bytes, mediaType, tag, dryRun);
  }

  #selected(index: ImageIndex, name: string): Descriptor[] {
    const { platforms, observer } = this.#options;
    const images = index.manifests.filter((entry) => {
      // Attestations describe the source's manifests, so a converted index goes without them.
      const attestation = isAttestation(entry);
      if (attestation) observer.warning?.(`${name}: attestation ${entry.digest} describes the source image and is left out`);
      return !attestation;
    });
    if (platforms.length === 0) return images;
    for (const wanted of platforms) {
      if (images.some((entry) => entry.platform && samePlatform(entry.platform, wanted))) continue;
      const found = images.map((entry) => (entry.platform ? formatPlatform(entry.platform) : "unknown")).join(", ");
      throw new LazyError("NOT_FOUND", `${name}: no image for ${formatPlatform(wanted)}; it has ${found}`);
    }
    return images.filter((entry) => entry.platform && platforms.some((wanted) => samePlatform(entry.platform!, wanted)));
  }

  /** An image without an index says for itself what it is for. */
  async #checkPlatform(manifest: Manifest, name: string): Promise<void> {
    const { platforms } = this.#options;
    if (platforms.length === 0) return;
    const { os = "unknown", architecture = "unknown", variant } = parseConfig(await this.#source.blob(manifest.config), `${name}: config`);
    const found: Platform = { os, architecture, ...(variant !== undefined && { variant }) };
    const missing = platforms.find((wanted) => !samePlatform(found, wanted));
    if (missing) throw new LazyError("NOT_FOUND", `${name}: no image for ${formatPlatform(missing)}; it is for ${formatPlatform(found)}`);
  }

  async #image(
    document: ResolvedDocument,
    manifest: Manifest,
    name: string,
    platform: Platform | undefined,
    tag: string | undefined,
  ): Promise<Descriptor> {
    const { observer, keep, virtualSize, family, base, compress, signal, dump, dryRun } = this.#options;
    const bytes = manifest.layers.reduce((sum, layer) => sum + layer.size, 0);
    observer.imageStarted?.({ name, layers: manifest.layers.length, bytes });
    const directory = this.#directory.inside(this.#directoryName(document.descriptor.digest, platform));
    const shared = { source: this.#source, scans: this.#scans, keepSpools: keep };
    try {
      await directory.create();
      const image = await convertManifest(manifest, name, {
        ...shared,
        directory: directory.path,
        virtualSize,
        family,
        base,
        compress,
        observer,
        signal,
      });
      try {
        if (dump) await directory.dump("config.json", image.config);
        if (dump) await directory.dump("manifest.json", image.manifest);
        if (!dryRun) await this.#store(image);
        return await this.#putManifest(image.manifest, image.mediaType, tag, dryRun);
      } finally {
        await image.close();
      }
    } finally {
      if (!keep && !dump) await directory.remove();
    }
  }

  /** `<n>-<platform>-<digest>`, with the platform empty for a single image. */
  #directoryName(digest: Digest, platform: Platform | undefined): string {
    this.#images++;
    const readable = platform ? formatPlatform(platform).replaceAll(/[^A-Za-z0-9._-]/g, "_") : "";
    return `${this.#images}-${readable}-${hexOf(digest)}`;
  }

  async #store(image: ConvertedManifest): Promise<void> {
    const { observer, signal } = this.#options;
    const uploads = new Semaphore(UPLOADS);
    await Promise.all(
      image.layers.map(async ({ descriptor, content }, index) => {
        const release = await uploads.acquire();
        try {
          signal.throwIfAborted();
          const how = await this.#destination.putBlob(descriptor, content, { signal });
          observer.layerStored?.({ index, how });
        } finally {
          release();
        }
      }),
    );
    await this.#destination.putBlob(image.configDescriptor, new MemorySource(image.config, "config"), { signal });
  }

  async #putManifest(bytes: Uint8Array, mediaType: string, tag: string | undefined, dryRun: boolean): Promise<Descriptor> {
    this.#options.signal.throwIfAborted();
    if (dryRun) return { mediaType, digest: digestOf(bytes), size: bytes.length };
    return await this.#destination.putManifest(bytes, mediaType, { tag });
  }
}
