import { link, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { IMAGE_TAG } from "../images/debian-builder.ts";
import type { StoredImage } from "../images/layout-writer.ts";
import { dataDirectory } from "./loopback-registry.ts";

/**
 * Puts an image of a layout into the directory of a registry that does not run yet, under the tag `src`, as the registry itself would
 * have stored it. Blobs become second names of the layout's files (the registry never writes into a blob), so that an image of
 * gigabytes costs neither time nor disk.
 */
export async function publishLayout(layout: string, image: StoredImage, registry: string, repository: string): Promise<void> {
  const storage = join(dataDirectory(registry), "docker/registry/v2");
  const own = join(storage, "repositories", repository);
  const write = async (path: string, digest: string): Promise<void> => {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, digest);
  };
  for (const digest of new Set([image.manifest, image.config, ...image.layers].map((blob) => blob.digest))) {
    const hex = digest.slice("sha256:".length);
    const directory = join(storage, "blobs/sha256", hex.slice(0, 2), hex);
    await mkdir(directory, { recursive: true });
    await link(join(layout, "blobs/sha256", hex), join(directory, "data"));
    if (digest !== image.manifest.digest) await write(join(own, "_layers/sha256", hex, "link"), digest);
  }
  const { digest } = image.manifest;
  const hex = digest.slice("sha256:".length);
  await write(join(own, "_manifests/revisions/sha256", hex, "link"), digest);
  await write(join(own, "_manifests/tags", IMAGE_TAG, "current/link"), digest);
  await write(join(own, "_manifests/tags", IMAGE_TAG, "index/sha256", hex, "link"), digest);
}
