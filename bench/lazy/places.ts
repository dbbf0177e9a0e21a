import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { execute, run } from "../../test/support/command.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "../../test/support/programs.ts";
import type { MadeImage } from "../images/bench-images.ts";
import { IMAGE_TAG } from "../images/debian-builder.ts";
import { LoopbackRegistry } from "../registry/loopback-registry.ts";
import { publishLayout } from "../registry/published-layout.ts";

export const REPOSITORY = "bench/image";
export const FORMATS = ["overlaybd", "turbo"] as const;
export type Format = (typeof FORMATS)[number];

/** A registry with an image, and a directory for everything that is made of it. */
export interface Stage {
  readonly registry: LoopbackRegistry;
  readonly work: string;
  readonly signal: AbortSignal;
}

/** Starts a registry that has the image, gives it to `use`, and leaves nothing behind. */
export async function onStage<T>(image: MadeImage, work: string, signal: AbortSignal, use: (stage: Stage) => Promise<T>): Promise<T> {
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  try {
    const directory = join(work, "registry");
    await publishLayout(image.layout, image, directory, REPOSITORY);
    await using registry = await LoopbackRegistry.start(directory);
    return await use({ registry, work, signal });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Environment of commands that keep their caches in the stage's directory. */
export function environmentOf({ work }: Stage): Readonly<Record<string, string>> {
  return { ...CLEAN_ENVIRONMENT, TMPDIR: work, XDG_CACHE_HOME: join(work, "cache-home") };
}

/** Converts the image inside of its repository. */
export function conversionCommand({ registry }: Stage, formats: readonly Format[]): string[] {
  const place = `${registry.host}/${REPOSITORY}`;
  const tags = formats.map((format) => `${place}:${format}`);
  return [LAZYLAYER, "convert", "--to", formats.join(","), "--db-type", "none", "--progress", "none", `${place}:${IMAGE_TAG}`, ...tags];
}

/** Mounts an image, gives the directory to `use`, unmounts it. The cache stays. */
export async function whileMounted<T>(stage: Stage, image: string, cache: string, use: (directory: string) => Promise<T> | T): Promise<T> {
  const directory = join(stage.work, "mnt");
  await mkdir(directory, { recursive: true });
  const options = { env: environmentOf(stage), signal: stage.signal };
  await run(LAZYLAYER, ["mount", "--cache-dir", cache, image, directory], options);
  try {
    return await use(directory);
  } finally {
    await execute(LAZYLAYER, ["umount", directory], { env: environmentOf(stage) });
  }
}
