import { FileSource } from "../bytes/file.ts";
import { corrupt, LazyError } from "../errors.ts";
import { parseDigest } from "../oci/digest.ts";
import { openLocalFile } from "./image-config-file.ts";
import type { OpeningPlaces } from "./image-config-places.ts";
import { ImageOpenError, remoteReason } from "./image-config-result.ts";
import type { LowerConfig } from "./image-config-schema.ts";
import { openLocalTarget, openTarget, type OpenedTarget, type TargetParts } from "./turbo-layer.ts";

/** Indexes are held in memory. */
const MAX_INDEX_BYTES = 512 * 2 ** 20;

/**
 * Opens what a turboOCI layer's data is in: a local file, or else a blob of the repository; with an index, what is compressed in it.
 * `where` names the layer. Throws `ImageOpenError`: a target that cannot be had is never taken for none.
 */
export async function openConfiguredTarget(lower: LowerConfig, where: string, places: OpeningPlaces, layer: number): Promise<OpenedTarget> {
  const { targetFile, targetDigest, gzipIndex } = lower;
  if (targetFile === "" && targetDigest === "") {
    const missing = new LazyError("USAGE", "has a gzipIndex, but neither targetFile nor targetDigest that it could be of");
    throw new ImageOpenError(`failed to open layer ${layer}`, where, missing);
  }
  const parts = gzipIndex === "" ? {} : await readIndex(gzipIndex, `${where}.gzipIndex`);
  return targetFile === "" ? await openRemoteTarget(lower, parts, where, places) : await openFileTarget(lower, parts, where, places);
}

async function readIndex(path: string, where: string): Promise<TargetParts> {
  try {
    return await readGzipIndex(path);
  } catch (error) {
    throw new ImageOpenError(`failed to open gzip index ${path}`, where, error);
  }
}

/** The index file of a gzip blob. */
export async function readGzipIndex(path: string): Promise<TargetParts> {
  const file = await FileSource.open(path);
  try {
    if (file.size > MAX_INDEX_BYTES) throw corrupt(`${path}: an index of ${file.size} bytes, expected at most ${MAX_INDEX_BYTES}`);
    return { gzipIndex: { name: path, bytes: await file.read(0, file.size) } };
  } finally {
    await file.close();
  }
}

async function openFileTarget(lower: LowerConfig, parts: TargetParts, where: string, places: OpeningPlaces): Promise<OpenedTarget> {
  const { targetFile, targetDigest, gzipIndex } = lower;
  const file = await openLocalFile(targetFile, `${where}.targetFile`);
  try {
    const digest = targetDigest === "" ? undefined : parseDigest(targetDigest, "targetDigest");
    return await openLocalTarget(file, parts, { digest, cache: places.gzipCache });
  } catch (error) {
    await file.close();
    const reason = gzipIndex === "" ? `failed to open local file ${targetFile}` : `failed to open gzip index ${gzipIndex}`;
    throw new ImageOpenError(reason, where, error);
  }
}

async function openRemoteTarget(lower: LowerConfig, parts: TargetParts, where: string, places: OpeningPlaces): Promise<OpenedTarget> {
  const { targetDigest, gzipIndex } = lower;
  try {
    const place = await places.remote();
    const cache = parts.gzipIndex === undefined ? places.cache : (places.gzipCache ?? places.cache);
    const digest = parseDigest(targetDigest, "targetDigest");
    const { fetched, notice } = places;
    return await openTarget({ digest, mediaType: undefined }, parts, where, { layers: place, data: place, cache, fetched, notice });
  } catch (error) {
    if (error instanceof ImageOpenError) throw error;
    throw new ImageOpenError(targetReason(error, `/${places.repoBlobUrl}/${targetDigest}`, gzipIndex), `${where}.targetDigest`, error);
  }
}

function targetReason(error: unknown, url: string, gzipIndex: string): string {
  const said = remoteReason(error);
  if (said === "Authentication failed") return said;
  const isContent = error instanceof LazyError && error.code === "CORRUPT";
  return isContent && gzipIndex !== "" ? `failed to open gzip index ${gzipIndex}` : `failed to open remote file ${url}: ${said}`;
}
