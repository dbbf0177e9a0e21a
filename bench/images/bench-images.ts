import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { makeDebianImage } from "../demo/debian-image.ts";
import type { MakeOptions } from "./debian-builder.ts";
import { keepLayout } from "./kept-layout.ts";
import { makeLarge, makeSingleLayer } from "./large-image.ts";
import { LayoutWriter, readLayout, type StoredImage } from "./layout-writer.ts";
import { manyFilesLayer, mixedLayer, oneFileLayer, tinyLayer } from "./made-up-layers.ts";
import { tarBytesOf } from "./tar-bytes.ts";

interface BenchImage {
  readonly about: string;
  /** Disk that the image takes, and that a round takes besides at its worst. */
  readonly keptMegabytes: number;
  readonly workMegabytes: number;
  /** An image that must be there before. */
  readonly needs?: ImageName;
  /** Changes in these files, in `about` or in the image below make the image anew. */
  readonly files: readonly string[];
  /** Makes `work/layout`; `below` is the layout that it needs. */
  readonly make: (work: string, below: string, options: MakeOptions) => Promise<void>;
}

const TINY_LAYERS = 120;
const MANY_FILES = 200_000;
const TWO_GB = 2_000_000_000;

export const IMAGE_NAMES = ["debian", "tiny", "one-file", "many-files", "large", "large-single", "two-gb"] as const;
export type ImageName = (typeof IMAGE_NAMES)[number];

const IMAGES: Readonly<Record<ImageName, BenchImage>> = {
  debian: {
    about: "a minimal Debian, Python and Redis on it, deletions and oddities",
    keptMegabytes: 90,
    workMegabytes: 900,
    files: [],
    make: async () => {},
  },
  tiny: {
    about: `${TINY_LAYERS} layers of two files each on a minimal Debian`,
    keptMegabytes: 2,
    workMegabytes: 700,
    needs: "debian",
    files: ["made-up-layers.ts", "layout-writer.ts"],
    make: async (work, below) => {
      await onDebian(work, below, 1, async (writer) => {
        for (let number = 0; number < TINY_LAYERS; number++) await writer.addTar(tinyLayer(number));
      });
    },
  },
  "one-file": {
    about: "one changed file on the debian image",
    keptMegabytes: 1,
    workMegabytes: 900,
    needs: "debian",
    files: ["made-up-layers.ts", "layout-writer.ts"],
    make: async (work, below) => {
      await onDebian(work, below, undefined, (writer) => writer.addTar(oneFileLayer()));
    },
  },
  "many-files": {
    about: `${MANY_FILES.toLocaleString("en")} small files in one layer`,
    keptMegabytes: 130,
    workMegabytes: 2200,
    needs: "debian",
    files: ["made-up-layers.ts", "layout-writer.ts"],
    make: async (work, below) => {
      await onDebian(work, below, 0, (writer) => writer.addTar(manyFilesLayer(MANY_FILES)));
    },
  },
  large: {
    about: "a scientific Python, Jupyter, compilers, R, TeX on a minimal Debian",
    keptMegabytes: 1150,
    workMegabytes: 7500,
    files: ["large-image.ts", "debian-builder.ts"],
    make: async (work, _below, options) => {
      await makeLarge(work, options);
    },
  },
  "large-single": {
    about: "the tree of large in one layer",
    keptMegabytes: 1150,
    workMegabytes: 7500,
    needs: "large",
    files: ["large-image.ts", "layout-writer.ts"],
    make: async (work, below, options) => {
      await makeSingleLayer(below, work, options);
    },
  },
  "two-gb": {
    about: "2 GB in one layer, a quarter of it incompressible",
    keptMegabytes: 1100,
    workMegabytes: 6000,
    needs: "debian",
    files: ["made-up-layers.ts", "layout-writer.ts"],
    make: async (work, below) => {
      const [bottom] = (await readLayout(below)).layers;
      const tarBytes = await tarBytesOf(bottom.path);
      await onDebian(work, below, 0, (writer) => writer.addTar(mixedLayer(bottom.path, tarBytes, TWO_GB)));
    },
  },
};

export interface MadeImage extends StoredImage {
  readonly name: ImageName;
  readonly about: string;
  /** An OCI layout whose only tag is `src`. */
  readonly layout: string;
}

/** The image of a name, made in `directory` if it is not there as its recipe says, and what it needs before. */
export async function benchImage(name: ImageName, directory: string, options: MakeOptions): Promise<MadeImage> {
  const { about, needs, files, make } = IMAGES[name];
  const layout = join(directory, name);
  const below = needs === undefined ? undefined : await benchImage(needs, directory, options);
  await mkdir(directory, { recursive: true });
  if (name === "debian") {
    await makeDebianImage("small", layout, options);
  } else {
    const recipe = `${name}: ${about}; on ${below?.manifest.digest ?? "nothing"}`;
    await keepLayout(layout, { name: recipe, files: files.map((file) => join(import.meta.dirname, file)) }, async (work) => {
      options.say(`make ${name}: ${about}`);
      await make(work, below?.layout ?? "", options);
    });
  }
  return { name, about, layout, ...(await readLayout(layout)) };
}

/** Bytes of disk that it takes to make the images that are not in `directory` yet, and to measure any one of `names`. */
export function diskNeed(names: readonly ImageName[], directory: string): number {
  const wanted = new Set(names.flatMap(withNeeds));
  const absent = [...wanted].filter((name) => !existsSync(`${join(directory, name)}.recipe`));
  const kept = absent.reduce((total, name) => total + IMAGES[name].keptMegabytes, 0);
  return 1e6 * (kept + Math.max(...[...wanted].map((name) => IMAGES[name].workMegabytes)));
}

function withNeeds(name: ImageName): ImageName[] {
  const { needs } = IMAGES[name];
  return needs === undefined ? [name] : [...withNeeds(needs), name];
}

/** An image in `work/layout` of the first layers of `below` (default: all) and those that `add` writes. */
async function onDebian(
  work: string,
  below: string,
  layers: number | undefined,
  add: (writer: LayoutWriter) => Promise<void>,
): Promise<void> {
  const image = await readLayout(below);
  const writer = await LayoutWriter.create(join(work, "layout"), image.architecture);
  for (const layer of image.layers.slice(0, layers)) await writer.addStored(layer);
  await add(writer);
  await writer.finish();
}
