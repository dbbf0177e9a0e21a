import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { gunzipSync, gzipSync } from "node:zlib";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseConfig } from "../../src/oci/config.ts";
import { digestOf, type Digest } from "../../src/oci/digest.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseManifest, type Manifest } from "../../src/oci/manifest.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { CommandResult } from "../support/command.ts";
import type { HostileRegistry } from "../support/hostile-registry.ts";
import { copyImage, writeImage, type BuiltImage } from "../support/image-builder.ts";
import { tarArchive, type TarMember } from "../support/tar-builder.ts";

/** Bytes that do not compress, the same for the same name. */
export function noise(name: string, bytes: number): Buffer {
  const key = createHash("sha256").update(name).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

const SPARSE = {
  size: 3 << 20,
  extents: [
    { offset: 4096, length: 10_240 },
    { offset: 2 << 20, length: 512 },
  ],
};

/** Three layers that change each other's files in every way. */
export const TREE: readonly (readonly TarMember[])[] = [
  [
    { name: "d/" },
    { name: "d/large", data: noise("large", 3_000_000) },
    { name: "d/small", data: "small\n", xattrs: { "user.a": "1" } },
    { name: "d/same", type: "hardlink", link: "d/small" },
    { name: "d/gone", data: noise("gone", 5000) },
    { name: "d/replaced", data: noise("replaced", 9000) },
    { name: "holes", data: noise("holes", 10_240 + 512), sparse: SPARSE },
    { name: "opaque/" },
    { name: "opaque/hidden", data: "hidden" },
  ],
  [
    { name: "d/.wh.gone" },
    { name: "d/replaced", data: "shorter" },
    { name: "d/link", type: "hardlink", link: "d/large" },
    { name: "opaque/" },
    { name: "opaque/.wh..wh..opq" },
    { name: "opaque/seen", data: noise("seen", 70_000) },
  ],
  [
    { name: "d/another", type: "hardlink", link: "d/small" },
    { name: "holes", data: noise("filled", 1 << 20), mtime: 5 },
    { name: "d/link2", type: "symlink", link: "large" },
    { name: "empty", data: "" },
  ],
];

/** An image of these tars, gzip layers. */
export function gzipImage(tars: readonly Uint8Array[], level = 1): BuiltImage {
  return { layers: tars.map((tar) => ({ blob: gzipSync(tar, { level }), diffId: digestOf(tar) })) };
}

export function treeImage(): BuiltImage {
  return gzipImage(TREE.map((members) => tarArchive(members)));
}

/** Writes an image into a layout and pushes it. `to` is `host/repository`. */
export async function pushImage(layout: string, tag: string, image: BuiltImage, to: string): Promise<Descriptor> {
  const descriptor = await writeImage(layout, tag, image);
  await using store = openRepository(to);
  await copyImage(await openLayoutStore(layout), { tag }, store.repository, tag);
  return descriptor;
}

export function openRepository(name: string): { readonly repository: ImageStore } & AsyncDisposable {
  const reference = parseReference(name);
  assert.ok(reference.kind === "registry");
  const repository = openRegistryStore(reference);
  return { repository, [Symbol.asyncDispose]: async () => await repository.close() };
}

export interface ImageParts {
  readonly manifest: Manifest;
  readonly diffIds: readonly string[];
  readonly blobs: readonly Uint8Array[];
}

/** Of an image in a repository. */
export async function imageParts(repository: string, tag: string): Promise<ImageParts> {
  await using store = openRepository(repository);
  return await partsOf(store.repository, tag);
}

export async function partsOf(store: ImageStore, tag: string): Promise<ImageParts> {
  const { descriptor, bytes } = await store.resolve({ tag });
  const manifest = parseManifest(bytes, descriptor.mediaType, tag);
  const config = parseConfig(await store.blob(manifest.config), tag);
  return {
    manifest,
    diffIds: config.rootfs.diff_ids,
    blobs: await Promise.all(manifest.layers.map(async (layer) => await readAll(store, layer))),
  };
}

async function readAll(store: ImageStore, layer: Descriptor): Promise<Uint8Array> {
  const source = await store.blobSource(layer);
  const bytes = await source.read(0, source.size);
  await source.close();
  return bytes;
}

/** Names of the files in a gzipped tar, in order. */
export function memberNames(blob: Uint8Array): string[] {
  const tar = gunzipSync(blob);
  const names: string[] = [];
  for (let at = 0; tar[at] !== 0;) {
    names.push(tar.toString("latin1", at, tar.indexOf(0, at)));
    at += 512 + Math.ceil(Number.parseInt(tar.toString("latin1", at + 124, at + 135), 8) / 512) * 512;
  }
  return names;
}

/** How often a blob was asked for as a whole. */
export function wholeReads({ seen }: HostileRegistry, digest: Digest): number {
  const isRead = ({ method, url }: HostileRegistry["seen"][number]): boolean => method === "GET" && url.endsWith(`/blobs/${digest}`);
  return seen.filter((request) => isRead(request) && request.headers["range"] === undefined).length;
}

export function succeeded({ status, stdout, stderr }: CommandResult): { stdout: string; stderr: string } {
  assert.equal(status, 0, `${stdout.toString()}${stderr}`);
  return { stdout: stdout.toString(), stderr };
}
