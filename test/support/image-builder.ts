import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { MemorySource } from "../../src/bytes/source.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf, hexOf, type Digest } from "../../src/oci/digest.ts";
import type { ImageStore, ResolveTarget } from "../../src/oci/image-store.ts";
import { parseIndex } from "../../src/oci/index.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { documentKind, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { tarArchive, type TarMember } from "./tar-builder.ts";

export interface BuiltLayer {
  /** As stored. */
  readonly blob: Uint8Array;
  readonly diffId: Digest;
  readonly mediaType?: string;
}

export interface BuiltImage {
  readonly layers: readonly BuiltLayer[];
  /** More of the config, or other values. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** The same of the manifest. */
  readonly manifest?: Readonly<Record<string, unknown>>;
}

/** A gzip layer with these members. */
export function layerOf(members: readonly TarMember[]): BuiltLayer {
  return layerOfTar(tarArchive(members));
}

export function layerOfTar(tar: Uint8Array): BuiltLayer {
  return { blob: gzipSync(tar, { level: 1 }), diffId: digestOf(tar) };
}

/** Writes an image into a layout directory, which is made if it is missing. Gives the manifest's descriptor. */
export async function writeImage(directory: string, tag: string, image: BuiltImage): Promise<Descriptor> {
  const store = await openLayoutStore(directory, { create: true });
  const descriptor = await putImage(store, image, tag);
  await store.close();
  return descriptor;
}

async function putImage(store: ImageStore, image: BuiltImage, tag: string | undefined): Promise<Descriptor> {
  const layers: Descriptor[] = [];
  for (const { blob, mediaType = OCI_LAYER_GZIP } of image.layers) layers.push(await putBlob(store, blob, mediaType));
  const rootfs = { type: "layers", diff_ids: image.layers.map((layer) => layer.diffId) };
  const config = await putBlob(store, json({ architecture: "amd64", os: "linux", config: {}, rootfs, ...image.config }), OCI_CONFIG);
  return await store.putManifest(json({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers, ...image.manifest }), OCI_MANIFEST, {
    tag,
  });
}

async function putBlob(store: ImageStore, bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
  const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
  await store.putBlob(descriptor, new MemorySource(bytes, "blob"));
  return descriptor;
}

function json(value: object): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

/** Copies an image or an index as it is, byte for byte. */
export async function copyImage(from: ImageStore, source: ResolveTarget, to: ImageStore, tag: string): Promise<void> {
  const { descriptor, bytes } = await from.resolve(source);
  await copyDocument(from, to, descriptor, bytes, tag);
}

async function copyDocument(
  from: ImageStore,
  to: ImageStore,
  descriptor: Descriptor,
  bytes: Uint8Array,
  tag: string | undefined,
): Promise<void> {
  if (documentKind(descriptor.mediaType) === "index") {
    for (const entry of parseIndex(bytes, descriptor.mediaType, "index").manifests)
      await copyDocument(from, to, entry, await from.manifest(entry), undefined);
  } else {
    const { config, layers } = parseManifest(bytes, descriptor.mediaType, "manifest");
    for (const blob of [config, ...layers]) {
      const content = await from.blobSource(blob);
      await to.putBlob(blob, content);
      await content.close();
    }
  }
  await to.putManifest(bytes, descriptor.mediaType, { tag });
}

/** Changes a blob's file in a layout, whose name then no longer is its digest. */
export async function damageBlob(directory: string, digest: Digest, change: "flip" | "cut" | "grow"): Promise<void> {
  const path = join(directory, "blobs/sha256", hexOf(digest));
  const bytes = await readFile(path);
  bytes[bytes.length >> 1] ^= change === "flip" ? 1 : 0;
  await writeFile(path, change === "grow" ? Buffer.concat([bytes, Buffer.alloc(1)]) : bytes.subarray(0, change === "cut" ? -1 : undefined));
}
