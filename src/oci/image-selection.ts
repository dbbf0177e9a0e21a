import { LazyError, unsupported } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest, type Digest } from "./digest.ts";
import type { ImageStore, ResolveTarget } from "./image-store.ts";
import { parseIndex } from "./index.ts";
import { parseManifest, type Manifest } from "./manifest.ts";
import { documentKind } from "./media-types.ts";
import { formatPlatform, selectPlatform, type Platform } from "./platform.ts";

/** One image and what it was found as. */
export interface SelectedImage {
  readonly descriptor: Descriptor;
  readonly manifest: Manifest;
}

const MAX_INDEX_DEPTH = 4;

/** All images that a reference leads to: one, or those of an index, attestations and other artifacts left out. */
export async function listImages(store: ImageStore, target: ResolveTarget): Promise<SelectedImage[]> {
  const { descriptor, bytes } = await store.resolve(target);
  return await imagesOf(store, descriptor, bytes, 0);
}

/** The image that a reference leads to; of an index, the one for the platform. Throws `NOT_FOUND` if it has none. */
export async function selectImage(store: ImageStore, target: ResolveTarget, platform: Platform): Promise<SelectedImage> {
  const images = await listImages(store, target);
  const [only, ...others] = images;
  if (only && others.length === 0) return only;
  const wanted = selectPlatform(
    images.map((image) => image.descriptor),
    platform,
  );
  const found = images.find((image) => image.descriptor === wanted);
  if (found) return found;
  const platforms = images.map(({ descriptor }) => (descriptor.platform ? formatPlatform(descriptor.platform) : "unknown"));
  throw new LazyError(
    "NOT_FOUND",
    `${store.name}: no image for ${formatPlatform(platform)}; it has ${platforms.join(", ") || "none at all"}`,
  );
}

async function imagesOf(store: ImageStore, descriptor: Descriptor, bytes: Uint8Array, depth: number): Promise<SelectedImage[]> {
  const where = `${store.name}@${descriptor.digest}`;
  const kind = documentKind(descriptor.mediaType);
  if (kind === "manifest") return [{ descriptor, manifest: parseManifest(bytes, descriptor.mediaType, where) }];
  if (kind === undefined) throw unsupported(`${where}: media type ${descriptor.mediaType} is neither an image nor an index`);
  if (depth >= MAX_INDEX_DEPTH) throw unsupported(`${where}: indexes are nested more than ${MAX_INDEX_DEPTH} deep`);
  const images: SelectedImage[] = [];
  for (const entry of parseIndex(bytes, descriptor.mediaType, where).manifests) {
    if (isAttestation(entry)) continue;
    images.push(...(await imagesOf(store, entry, await store.manifest(entry), depth + 1)));
  }
  return images;
}

/** Of the image that an attestation describes, as BuildKit annotates it. */
const ATTESTED_DIGEST = "vnd.docker.reference.digest";

/** Attestations stand in indexes like images, but describe them. */
export function isAttestation(entry: Descriptor): boolean {
  return entry.annotations?.["vnd.docker.reference.type"] === "attestation-manifest";
}

/** The digest of the image that an attestation describes; undefined if it does not say. */
export function attestedDigest(entry: Descriptor): Digest | undefined {
  const digest = entry.annotations?.[ATTESTED_DIGEST];
  return isDigest(digest) ? digest : undefined;
}

/** The entry of an attestation, describing another image. */
export function withAttested(entry: Descriptor, digest: Digest): Descriptor {
  return { ...entry, annotations: { ...entry.annotations, [ATTESTED_DIGEST]: digest } };
}
