import { readFile } from "node:fs/promises";
import { FileSource } from "../../bytes/file.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { lockUpper } from "../../daemon/upper-lock.ts";
import { openLower } from "../../device/image-config-lower.ts";
import { writeResult } from "../../device/image-config-result.ts";
import { parseImageConfig, type ImageConfig } from "../../device/image-config-schema.ts";
import { openUpperTarget } from "../../device/image-config-upper.ts";
import { openLayers } from "../../device/native-layer.ts";
import { readingUnsynced } from "../../device/unsynced-file.ts";
import { LazyError, messageOf } from "../../errors.ts";
import type { LsmtLayer } from "../../formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../../formats/lsmt/stack.ts";
import { openUnsealedWarpLayer } from "../../formats/lsmt/unsealed-warp-layer.ts";
import { openWritableStack, type WritableStack } from "../../formats/lsmt/writable-stack.ts";
import type { Environment } from "../environment.ts";
import { openImagePlaces } from "./image-places.ts";
import { openCommitSource, openWarpUpper, openWritable } from "./layer-files.ts";
import { openFailure } from "./tool.ts";

export interface ImageOptions {
  /** Of the image. */
  readonly configPath: string;
  /** Of the service; undefined: where it usually is, if it is there. */
  readonly servicePath: string | undefined;
}

/** All layers of an image, the lowest first, the writable one as it is on disk. */
export interface ImageLayers {
  readonly layers: readonly LsmtLayer[];
  readonly hasWritable: boolean;
  readonly close: () => Promise<void>;
}

/** Opens an image to read its layers. */
export async function openImageLayers(options: ImageOptions, environment: Environment): Promise<ImageLayers> {
  const notice = noticeOf(environment);
  return await opening(options, environment, async (config, lowers, closePlaces) => {
    const { upper } = config;
    const layers = [...lowers];
    const hasWritable = hasUpper(config);
    if (hasWritable) {
      const { data, index, target } = upper;
      layers.push(await (target === "" ? openCommitSource("writable", data, index, notice) : openUnsealedWarp(upper, notice)));
    }
    if (layers.length === 0) throw new LazyError("USAGE", `${options.configPath}: has neither lowers nor an upper`);
    const close = async (): Promise<void> => {
      for (const layer of layers) await layer.close();
      await closePlaces();
    };
    return { layers, hasWritable, close };
  });
}

/** An image that is written to. */
export interface WritableImage {
  readonly device: WritableStack;
  readonly hasLowers: boolean;
  readonly close: () => Promise<void>;
}

/** Opens an image as a device that its writable layer takes writes for. Until it is closed no other process may write to that layer. */
export async function openWritableImage(options: ImageOptions, environment: Environment): Promise<WritableImage> {
  return await opening(options, environment, async (config, lowers, closePlaces) => {
    if (!hasUpper(config))
      throw new LazyError("USAGE", `${options.configPath}: upper.data and upper.index are missing: the image is read-only`);
    const { data, index, target } = config.upper;
    await using cleanup = new AsyncDisposableStack();
    const lock = await lockUpper(data, "upper.data");
    cleanup.defer(() => void lock.close());
    const notice = noticeOf(environment);
    const upper = target === "" ? await openWritable(data, index, notice) : await openWarpUpper(data, index, target, notice);
    cleanup.defer(async () => await upper.close());
    const hasLowers = lowers.length > 0;
    const device = await openWritableStack(hasLowers ? stackLayers(lowers) : undefined, upper);
    cleanup.move();
    const close = async (): Promise<void> => {
      try {
        await device.close();
      } finally {
        lock.close();
      }
      await closePlaces();
    };
    return { device, hasLowers, close };
  });
}

function hasUpper({ upper }: ImageConfig): boolean {
  return upper.data !== "" && upper.index !== "";
}

/** Opens the lower layers, then what `open` makes of them, and writes the result file. */
async function opening<R>(
  { configPath, servicePath }: ImageOptions,
  environment: Environment,
  open: (config: ImageConfig, lowers: readonly LsmtLayer[], closePlaces: () => Promise<void>) => Promise<R>,
): Promise<R> {
  const config = await readImageConfig(configPath, environment);
  const { places, close } = await openImagePlaces(config.repoBlobUrl, servicePath, environment);
  const lowers: LsmtLayer[] = [];
  try {
    const opened = await openLayers(config.lowers, async (lower, index) => await openLower(lower, index, places));
    lowers.push(...opened.map(({ lsmt }) => lsmt));
    const image = await open(config, lowers, close);
    await writeResult(config.resultFile, undefined, places.notice);
    return image;
  } catch (error) {
    for (const layer of lowers) await layer.close();
    await close();
    await writeResult(config.resultFile, error, places.notice);
    throw error;
  }
}

async function readImageConfig(path: string, { stderr }: Environment): Promise<ImageConfig> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw openFailure(path, error);
  }
  try {
    const { config, notices } = parseImageConfig(text, path);
    for (const notice of notices) stderr.write(`${path}: ${notice}\n`);
    return config;
  } catch (error) {
    throw new LazyError("USAGE", `failed to parse image config: ${messageOf(error)}`, { cause: error });
  }
}

function noticeOf({ stderr }: Environment): (message: string) => void {
  return (message) => void stderr.write(`${message}\n`);
}

async function openUnsealedWarp(upper: ImageConfig["upper"], notice: (message: string) => void): Promise<LsmtLayer> {
  const files: ByteSource[] = [];
  try {
    for (const path of [upper.data, upper.index]) files.push(await FileSource.open(path));
    files.push(await openUpperTarget(upper));
    const [metadata, index, target] = files;
    return await readingUnsynced(upper.index, notice, async (place) => await openUnsealedWarpLayer(metadata, index, target, place));
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}
