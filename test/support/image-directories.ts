import { mkdir, writeFile } from "node:fs/promises";
import { parseImageConfig, type ImageConfig } from "../../src/device/image-config-schema.ts";
import { load } from "./recorded-tree.ts";
import type { TemporaryDirectory } from "./temporary-directory.ts";
import { baseLayer, recordedTarget } from "./turbo-image.ts";

export type RecordedImage = "stack-base" | "stack-mkfs" | "turbo-base" | "turbo-mkfs" | "turbo-erofs";

const BASE_LAYER = "/opt/overlaybd/baselayers/ext4_64";

/** Puts the layers of a recorded image where its configuration expects them, below `directory`. */
export async function layOutImage(image: RecordedImage, directory: TemporaryDirectory): Promise<ImageConfig> {
  const [kind, filesystem] = image.split("-", 2);
  for (const layer of [0, 1, 2]) {
    const own = directory.join(`000${layer}`);
    await mkdir(own, { recursive: true });
    if (kind === "stack") {
      const name = filesystem === "base" ? "base" : "stack";
      await writeFile(`${own}/overlaybd.commit`, load(`overlaybd/${name}-layer${layer}.commit.zst`));
      continue;
    }
    const [target, index] = recordedTarget(layer, filesystem === "erofs");
    await writeFile(`${own}/layer.tar`, target);
    await writeFile(`${own}/gzip.meta`, index);
    await writeFile(`${own}/${filesystem === "erofs" ? "erofs" : "ext4"}.fs.meta`, load(`turbo-oci/${filesystem}-layer${layer}.fs.meta`));
  }
  await writeFile(directory.join("ext4_64"), baseLayer());
  const text = load(`image-config/${image}.json`)
    .toString()
    .replaceAll("$W", directory.path)
    .replaceAll(BASE_LAYER, directory.join("ext4_64"));
  return parseImageConfig(text, `${image}.json`).config;
}
