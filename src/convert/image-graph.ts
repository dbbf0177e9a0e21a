import { LazyError, unsupported } from "../errors.ts";
import { parseConfig, type ImageConfig } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore, ResolvedDocument } from "../oci/image-store.ts";
import { attestedDigest, isAttestation } from "../oci/image-selection.ts";
import { parseIndex, type ImageIndex } from "../oci/index.ts";
import { parseManifest, type Manifest } from "../oci/manifest.ts";
import { documentKind, isImageConfig, isTarLayer } from "../oci/media-types.ts";
import { formatPlatform, samePlatform, type Platform } from "../oci/platform.ts";
import { isConvertedLayer } from "../oci/overlaybd-layer.ts";

/** An image that is to be converted. */
export interface ImageNode {
  readonly kind: "image";
  readonly descriptor: Descriptor;
  /** For messages: where it is and its digest. */
  readonly name: string;
  readonly manifest: Manifest;
  readonly config: ImageConfig;
}

/** What is stored as it is: images that are converted already, and whatever in an index is no image. */
export interface KeptNode {
  readonly kind: "kept";
  readonly reason: "converted" | "attestation" | "artifact";
  readonly descriptor: Descriptor;
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Undefined for documents of a kind that is not known; they consist of themselves. */
  readonly manifest: Manifest | undefined;
}

export interface IndexNode {
  readonly kind: "index";
  readonly descriptor: Descriptor;
  readonly name: string;
  readonly index: ImageIndex;
  readonly entries: readonly GraphNode[];
}

export type GraphNode = ImageNode | KeptNode | IndexNode;

export interface GraphOptions {
  /** Only images for these; all when empty. */
  readonly platforms: readonly Platform[];
  readonly attestations: "keep" | "drop";
}

const MAX_INDEX_DEPTH = 4;
/** Documents of one index; more would be an attack on memory rather than an image. */
const MAX_ENTRIES = 1000;

/**
 * Reads what a reference leads to, down to the configs of its images, and says of each document what will become of it. Nothing of
 * the layers is read. Throws `UNSUPPORTED` for what holds no image, `NOT_FOUND` for platforms that are not there.
 */
export async function readImageGraph(store: ImageStore, top: ResolvedDocument, options: GraphOptions): Promise<GraphNode> {
  const reader = new GraphReader(store, options);
  return await reader.read(top);
}

class GraphReader {
  readonly #store: ImageStore;
  readonly #options: GraphOptions;
  readonly #found: Platform[] = [];
  #entries = 0;

  constructor(store: ImageStore, options: GraphOptions) {
    this.#store = store;
    this.#options = options;
  }

  async read(top: ResolvedDocument): Promise<GraphNode> {
    const name = this.#nameOf(top.descriptor);
    const node = await this.#document(top.descriptor, top.bytes, 0);
    const images = node === undefined ? [] : imagesOf(node);
    this.#checkPlatforms(name);
    if (node === undefined || images.length === 0) throw noImage(name, node);
    return node;
  }

  #nameOf({ digest }: Descriptor): string {
    return `${this.#store.name}@${digest}`;
  }

  /** Undefined for what is left out. */
  async #document(descriptor: Descriptor, bytes: Uint8Array, depth: number): Promise<GraphNode | undefined> {
    const name = this.#nameOf(descriptor);
    const kind = documentKind(descriptor.mediaType);
    if (kind === "index") return await this.#index(descriptor, bytes, depth);
    if (kind === undefined) return { kind: "kept", reason: "artifact", descriptor, name, bytes, manifest: undefined };
    const manifest = parseManifest(bytes, descriptor.mediaType, name);
    if (isAttestation(descriptor)) return { kind: "kept", reason: "attestation", descriptor, name, bytes, manifest };
    if (!isImage(manifest)) return { kind: "kept", reason: "artifact", descriptor, name, bytes, manifest };
    const config = parseConfig(await this.#store.blob(manifest.config), `${name}: config`);
    if (!this.#isWanted(knownPlatform(descriptor.platform) ?? configPlatform(config))) return undefined;
    const isConverted = manifest.layers.length > 0 && manifest.layers.every(isConvertedLayer);
    if (isConverted) return { kind: "kept", reason: "converted", descriptor, name, bytes, manifest };
    return { kind: "image", descriptor, name, manifest, config };
  }

  async #index(descriptor: Descriptor, bytes: Uint8Array, depth: number): Promise<IndexNode | undefined> {
    const name = this.#nameOf(descriptor);
    if (depth >= MAX_INDEX_DEPTH) throw unsupported(`${name}: indexes are nested more than ${MAX_INDEX_DEPTH} deep`);
    const index = parseIndex(bytes, descriptor.mediaType, name);
    this.#entries += index.manifests.length;
    if (this.#entries > MAX_ENTRIES) throw unsupported(`${name}: more than ${MAX_ENTRIES} entries`);
    const read = await Promise.all(index.manifests.map(async (entry) => await this.#entry(entry, depth + 1)));
    const entries = withoutStrayAttestations(
      read.filter((node) => node !== undefined),
      index,
    );
    if (depth > 0 && entries.length === 0 && index.manifests.length > 0) return undefined;
    return { kind: "index", descriptor, name, index, entries };
  }

  async #entry(entry: Descriptor, depth: number): Promise<GraphNode | undefined> {
    if (isAttestation(entry) && this.#options.attestations === "drop") return undefined;
    const platform = knownPlatform(entry.platform);
    // What says that it is for something else is not even read.
    if (platform && documentKind(entry.mediaType) === "manifest" && !this.#isWanted(platform)) return undefined;
    return await this.#document(entry, await this.#store.manifest(entry), depth);
  }

  #isWanted(platform: Platform): boolean {
    const { platforms } = this.#options;
    this.#found.push(platform);
    return platforms.length === 0 || platforms.some((wanted) => samePlatform(platform, wanted));
  }

  #checkPlatforms(name: string): void {
    for (const wanted of this.#options.platforms) {
      if (this.#found.some((platform) => samePlatform(platform, wanted))) continue;
      const found = [...new Set(this.#found.map(formatPlatform))].join(", ") || "none at all";
      throw new LazyError("NOT_FOUND", `${name}: no image for ${formatPlatform(wanted)}; it has ${found}`);
    }
  }
}

/** The images in a graph, converted already or not, in order. */
export function imagesOf(node: GraphNode): (ImageNode | KeptNode)[] {
  if (node.kind === "index") return node.entries.flatMap(imagesOf);
  return node.kind === "image" || node.reason === "converted" ? [node] : [];
}

/** Whether a manifest is one of an image, rather than of whatever else registries hold in the same form. */
function isImage({ config, layers }: Manifest): boolean {
  return isImageConfig(config.mediaType) && (layers.length === 0 || layers.some((layer) => isTarLayer(layer.mediaType)));
}

/** Attestations go where the image goes that they describe. */
function withoutStrayAttestations(nodes: readonly GraphNode[], index: ImageIndex): GraphNode[] {
  const there = new Set(nodes.map((node) => node.descriptor.digest));
  const known = new Set(index.manifests.map((entry) => entry.digest));
  return nodes.filter((node) => {
    const attested = node.kind === "kept" && node.reason === "attestation" ? attestedDigest(node.descriptor) : undefined;
    return attested === undefined || !known.has(attested) || there.has(attested);
  });
}

/** Builders write `unknown/unknown` for what is for no platform. */
function knownPlatform(platform: Platform | undefined): Platform | undefined {
  if (platform === undefined) return undefined;
  const isKnown = (part: string): boolean => part !== "" && part !== "unknown";
  return isKnown(platform.os) && isKnown(platform.architecture) ? platform : undefined;
}

/** An image without an index says for itself what it is for. */
function configPlatform({ os = "unknown", architecture = "unknown", variant }: ImageConfig): Platform {
  return { os, architecture, ...(variant !== undefined && { variant }) };
}

function noImage(name: string, node: GraphNode | undefined): LazyError {
  if (node?.kind !== "kept") return unsupported(`${name}: the index has no image in it; there is nothing to convert`);
  const layer = node.manifest?.layers[0];
  if (layer && isImageConfig(node.manifest.config.mediaType)) {
    return unsupported(`${name}: layer 0 has media type ${layer.mediaType}, expected a tar layer`);
  }
  const type = node.manifest?.artifactType ?? node.manifest?.config.mediaType ?? node.descriptor.mediaType;
  return unsupported(`${name}: is of type ${type}, not an image; there is nothing to convert`);
}
