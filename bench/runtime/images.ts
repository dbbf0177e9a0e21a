import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { hexOf } from "../../src/oci/digest.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { run } from "../../test/support/command.ts";
import { copyImage, layerOf, writeImage } from "../../test/support/image-builder.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "../../test/support/programs.ts";
import { halfNoise } from "../images/half-noise.ts";

const MIB = 2 ** 20;
/** The file that is read, in an image of ten layers. */
export const BIG_FILE = { name: "big", bytes: 512 * MIB } as const;
const SMALL_FILE_BYTES = 100_000;
/** Raised when the images change. */
const VERSION = 1;

export const LAYER_COUNTS = [1, 10, 100] as const;
export type LayerCount = (typeof LAYER_COUNTS)[number];

/** Where devices find the layers of an image: in files, or in a registry. */
export interface ImageConfigs {
  readonly local: object;
  readonly remote: object;
}

/** Makes the images, unless an earlier run has left them in `directory`, puts them into the registry, and answers their configurations. */
export async function benchConfigs(directory: string, registry: string): Promise<ReadonlyMap<LayerCount, ImageConfigs>> {
  const kept = join(directory, `images-${VERSION}`);
  if (!existsSync(kept)) await makeImages(kept, `${kept}.new`);
  const configs = new Map<LayerCount, ImageConfigs>();
  for (const layers of LAYER_COUNTS) configs.set(layers, await publish(kept, layers, registry));
  return configs;
}

async function makeImages(kept: string, fresh: string): Promise<void> {
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  for (const count of LAYER_COUNTS) {
    const layers = Array.from({ length: count }, (_, layer) => {
      const members = [{ name: `layer-${layer}`, data: halfNoise(SMALL_FILE_BYTES) }];
      return layerOf(count === 10 && layer === 5 ? [...members, { name: BIG_FILE.name, data: halfNoise(BIG_FILE.bytes) }] : members);
    });
    await writeImage(join(fresh, "source"), String(count), { layers });
    await run(LAZYLAYER, ["convert", "--vsize", "1", `oci:${join(fresh, "source")}:${count}`, `oci:${join(fresh, "layout")}:${count}`], {
      env: CLEAN_ENVIRONMENT,
    });
  }
  await rm(join(fresh, "source"), { recursive: true });
  await rename(fresh, kept);
}

async function publish(kept: string, count: LayerCount, registry: string): Promise<ImageConfigs> {
  const layout = join(kept, "layout");
  const repository = `bench/layers-${count}`;
  await using cleanup = new AsyncDisposableStack();
  const store = await openLayoutStore(layout);
  cleanup.defer(async () => await store.close());
  const place = openRegistryStore({ kind: "registry", host: registry, repository }, {});
  cleanup.defer(async () => await place.close());
  await copyImage(store, { tag: String(count) }, place, "v1");
  const { descriptor, bytes } = await store.resolve({ tag: String(count) });
  const { layers } = parseManifest(bytes, descriptor.mediaType, "manifest");
  return {
    local: { lowers: layers.map(({ digest }) => ({ file: join(layout, "blobs/sha256", hexOf(digest)) })) },
    remote: {
      repoBlobUrl: `http://${registry}/v2/${repository}/blobs`,
      lowers: layers.map(({ digest, size }) => ({ digest, size, dir: "" })),
    },
  };
}
