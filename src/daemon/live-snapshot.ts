import { copyFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { syncPath } from "../bytes/file-directories.ts";
import type { ImagePlaces } from "../device/image-config-places.ts";
import { hasUpper, lowersOf, type WritableImage } from "../device/image-config.ts";
import { localPaths } from "../device/image-config-lower.ts";
import { parseImageConfig, type ImageConfig, type LowerConfig } from "../device/image-config-schema.ts";
import { openUpper } from "../device/image-config-upper.ts";
import { LazyError } from "../errors.ts";
import { readConfigText } from "./config/config-file.ts";
import type { ProcessLock } from "./process-lock.ts";
import { lockUpper } from "./upper-lock.ts";

/** A live snapshot that is asked for. */
export interface Snapshot {
  /** Of the image as it is open. */
  readonly config: ImageConfig;
  readonly configPath: string;
  /** The configuration that is to take its place; the file goes away. */
  readonly newConfigPath: string;
}

interface Taken {
  readonly config: ImageConfig;
  readonly lock: ProcessLock;
}

/**
 * Makes the upper layer of a running device its top lower, and the new configuration's upper layer the one that is written to. The new
 * configuration must say exactly that: whoever opens the device later goes by it. Answers it, and the lock of the new upper layer, once
 * it has taken the place of the old.
 */
export async function takeSnapshot(image: WritableImage, snapshot: Snapshot, places: ImagePlaces): Promise<Taken> {
  const { config, configPath, newConfigPath } = snapshot;
  const next = parseImageConfig(await readConfigText(newConfigPath), newConfigPath).config;
  await checkSuccessor(config, next, newConfigPath);
  const lock = await lockUpper(next.upper.data);
  try {
    await putOnTop(image, next, places, async () => await replaceFile(newConfigPath, configPath));
    return { config: next, lock };
  } catch (error) {
    lock.close();
    throw error;
  }
}

async function putOnTop(image: WritableImage, next: ImageConfig, places: ImagePlaces, publish: () => Promise<void>): Promise<void> {
  const upper = await openUpper(next.upper, places);
  try {
    await image.device.restack(upper, publish);
  } catch (error) {
    if (image.device.upper !== upper) await upper.close();
    throw error;
  }
}

async function checkSuccessor(config: ImageConfig, next: ImageConfig, name: string): Promise<void> {
  const wrong = (key: string, expected: string): LazyError => new LazyError("USAGE", `${name}: ${key}: expected ${expected}`);
  if (!hasUpper(next.upper)) throw wrong("upper", "data and index of a new layer");
  for (const key of ["data", "index"] as const) {
    const [old, given] = [config.upper[key], next.upper[key]];
    if (old === given || (await isSameFile(old, given))) throw wrong(`upper.${key}`, `another file than ${old}, which is in use`);
  }
  const [own, given] = [lowersOf(config), lowersOf(next)];
  const count = own.length + 1;
  const top = given.at(-1);
  if (given.length !== count || top === undefined) {
    throw wrong("lowers", `${count} layers, those of the device and its upper layer, found ${given.length}`);
  }
  for (const [index, lower] of own.entries()) {
    if (!isSameLower(lower, given[index])) throw wrong(`lowers[${index}]`, "the layer that the device has there");
  }
  const file = await firstFile(top);
  if (file === undefined || !(await isSameFile(file, config.upper.data))) {
    throw wrong(`lowers[${count - 1}]`, `the file ${config.upper.data}, which the device has written to, found ${file ?? "no file"}`);
  }
}

/** A layer may meanwhile be in a file, too; what it is does not change. */
function isSameLower(one: LowerConfig, other: LowerConfig): boolean {
  if (one.digest !== "" && other.digest !== "") return one.digest === other.digest;
  return one.file === other.file && one.dir === other.dir;
}

async function firstFile(lower: LowerConfig): Promise<string | undefined> {
  for (const path of localPaths(lower)) if (await isThere(path)) return path;
  return undefined;
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

/** Whether two paths lead to one file; names of nothing lead nowhere. */
async function isSameFile(one: string, other: string): Promise<boolean> {
  try {
    const [a, b] = await Promise.all([stat(one, { bigint: true }), stat(other, { bigint: true })]);
    return a.dev === b.dev && a.ino === b.ino;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}

/** After a crash the path has the one or the other, whole. */
async function replaceFile(from: string, to: string): Promise<void> {
  await syncPath(from);
  try {
    await rename(from, to);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EXDEV")) throw error;
    await copyFile(from, `${to}.new`);
    await syncPath(`${to}.new`);
    await rename(`${to}.new`, to);
    await rm(from);
  }
  await syncPath(dirname(to));
}
