import { openDevice } from "../device/open-device.ts";
import { LazyError } from "../errors.ts";
import { parseConfig } from "../oci/config.ts";
import { listImages, type SelectedImage } from "../oci/image-selection.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { formatPlatform, samePlatform, type Platform } from "../oci/platform.ts";
import { compareTrees, type Difference } from "./compare-trees.ts";
import { EMPTY_TREE, readConvertedTree, type ConvertedTree } from "./converted-tree.ts";
import { readSourceTree } from "./source-tree.ts";

/** An image and the place it is in. */
export interface VerifiedPlace {
  readonly store: ImageStore;
  readonly target: ResolveTarget;
  /** Where the data of turboOCI layers is, if not there. */
  readonly dataPlace?: ImageStore | undefined;
}

export interface VerifyOptions {
  /** Of an index, only the images for these; all when empty. */
  readonly platforms: readonly Platform[];
  readonly signal: AbortSignal;
  /** That many more bytes of content have been read. */
  readonly observe: (bytes: number) => void;
  /** Called for each difference as it is found. */
  readonly differs: (difference: Difference, platform: Platform | undefined) => void;
}

export interface VerifyResult {
  readonly images: number;
  readonly paths: number;
  readonly differences: number;
}

/** Compares each image of the source with its converted counterpart, path by path. Reads both completely. */
export async function verifyImage(source: VerifiedPlace, converted: VerifiedPlace, options: VerifyOptions): Promise<VerifyResult> {
  const convertedImages = await listImages(converted.store, converted.target);
  let [paths, differences, images] = [0, 0, 0];
  for (const image of wanted(await listImages(source.store, source.target), options.platforms, source.store.name)) {
    const counterpart = counterpartOf(image, convertedImages, converted.store.name);
    const name = `${source.store.name}@${image.descriptor.digest}`;
    const config = parseConfig(await source.store.blob(image.manifest.config), `${name}: config`);
    const expected = [...(await readSourceTree(source.store, image.manifest, config, options.signal, options.observe)).list()];
    const found = await convertedTree(converted, counterpart, options);
    for (const difference of compareTrees(expected, found)) {
      differences++;
      options.differs(difference, image.descriptor.platform);
    }
    images++;
    paths += expected.length;
  }
  return { images, paths, differences };
}

async function convertedTree({ store, dataPlace }: VerifiedPlace, image: SelectedImage, options: VerifyOptions): Promise<ConvertedTree> {
  if (image.manifest.layers.length === 0) return EMPTY_TREE;
  const device = await openDevice(store, image.manifest, { dataPlace });
  try {
    return await readConvertedTree(device, options.signal, options.observe);
  } finally {
    await device.close();
  }
}

function wanted(images: readonly SelectedImage[], platforms: readonly Platform[], name: string): readonly SelectedImage[] {
  if (platforms.length === 0) return images;
  const found = images.filter(({ descriptor }) =>
    platforms.some((platform) => descriptor.platform && samePlatform(descriptor.platform, platform)),
  );
  if (found.length === 0) throw new LazyError("NOT_FOUND", `${name}: no image for ${platforms.map(formatPlatform).join(", ")}`);
  return found;
}

function counterpartOf(image: SelectedImage, converted: readonly SelectedImage[], name: string): SelectedImage {
  const { platform } = image.descriptor;
  const found = converted.find(({ descriptor }) => platform && descriptor.platform && samePlatform(descriptor.platform, platform));
  if (found) return found;
  const [only, ...others] = converted;
  if (only && others.length === 0 && !(platform && only.descriptor.platform)) return only;
  throw new LazyError("NOT_FOUND", `${name}: no image for ${platform ? formatPlatform(platform) : "an unknown platform"}`);
}
