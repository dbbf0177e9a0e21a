import type { ByteSource } from "../bytes/source.ts";
import type { BlockCache } from "../cache/block-cache.ts";
import { LazyError, messageOf } from "../errors.ts";
import { openWarpLayer } from "../formats/lsmt/warp-layer.ts";
import { isZFile, openZFile } from "../formats/zfile/zfile-reader.ts";
import { ZFILE_RECORD_BYTES } from "../formats/zfile/layout.ts";
import { parseDigest, type Digest } from "../oci/digest.ts";
import { RegistryError } from "../registry/registry-error.ts";
import { openTarPayload } from "../tar/payload.ts";
import type { BlobPlace } from "./blob-place.ts";
import { CountedSource } from "./counted-source.ts";
import { exists, openLocalFile } from "./image-config-file.ts";
import type { OpeningPlaces } from "./image-config-places.ts";
import { EMPTY_REPOSITORY, ImageOpenError, remoteReason } from "./image-config-result.ts";
import type { LowerConfig } from "./image-config-schema.ts";
import type { openConfiguredTarget } from "./image-config-target.ts";
import type { DeviceLayer } from "./layer-file.ts";
import { openNativeLayer } from "./native-layer.ts";
import { SwitchedSource } from "./switched-source.ts";
import type { OpenedTarget } from "./turbo-layer.ts";

/** Where a layer's directory may hold it, the best first. */
const NAMES_IN_DIRECTORY = ["overlaybd.commit", ".commit", "overlaybd.sealed"] as const;
const MIN_LAYER_BYTES = 512;

/**
 * Opens layer `index` of an image: its file, what its directory holds, or else the blob that its digest names. A local layer that cannot
 * be opened is told of, and the blob is taken. Throws `ImageOpenError` with the first thing that went wrong.
 */
export async function openLower(lower: LowerConfig, index: number, places: OpeningPlaces): Promise<DeviceLayer> {
  const where = `lowers[${index}]`;
  const target = hasTarget(lower) ? await openTargetOf(lower, where, places, index) : undefined;
  try {
    return await openLayerFile({ lower, where, index, target }, places);
  } catch (error) {
    await target?.source.close();
    throw error;
  }
}

/** Whether a layer has its data elsewhere. */
function hasTarget({ targetFile, targetDigest, gzipIndex }: LowerConfig): boolean {
  return targetFile !== "" || targetDigest !== "" || gzipIndex !== "";
}

/** What reads turboOCI layers takes memory, and is brought for them alone. */
async function openTargetOf(...args: Parameters<typeof openConfiguredTarget>): Promise<OpenedTarget> {
  const { openConfiguredTarget: open } = await import("./image-config-target.ts");
  return await open(...args);
}

/** A layer that is being opened. */
interface Opening {
  readonly lower: LowerConfig;
  /** Its key, for messages. */
  readonly where: string;
  readonly index: number;
  readonly target: OpenedTarget | undefined;
}

async function openLayerFile(opening: Opening, places: OpeningPlaces): Promise<DeviceLayer> {
  const { lower } = opening;
  const path = await findLocal(lower, opening.where);
  if (path === undefined) return await openRemote(opening, places);
  try {
    const layer = await openLocal(path, opening);
    if (lower.dir !== "") await places.layerCaches?.discard(lower.dir);
    return layer;
  } catch (error) {
    if (lower.digest === "" || places.repoBlobUrl === "") throw error;
    const layer = await openRemote(opening, places).catch((other: unknown) => {
      places.notice(`${opening.where}: ${messageOf(other)}`);
      throw error; // the result is the first failure
    });
    places.notice(`${messageOf(error)}; the layer is read from the registry instead`);
    return layer;
  }
}

/** Where a layer may be on this machine, the best first. */
export function localPaths({ file, dir }: Pick<LowerConfig, "file" | "dir">): string[] {
  const inDirectory = dir === "" ? [] : NAMES_IN_DIRECTORY.map((name) => `${dir}/${name}`);
  return file === "" ? inDirectory : [file, ...inDirectory];
}

async function findLocal(lower: LowerConfig, where: string): Promise<string | undefined> {
  for (const path of localPaths(lower)) {
    const found = await exists(path).catch((error: unknown) => {
      throw new ImageOpenError(`failed to open local file ${path}`, where, error);
    });
    if (found) return path;
  }
  return undefined;
}

async function openLocal(path: string, opening: Opening): Promise<DeviceLayer> {
  const source = await openLocalFile(path, opening.where);
  try {
    return await openLayerIn(source, opening, false);
  } catch (error) {
    const reasons = {
      tar: `failed to open file as tar file ${path}`,
      switch: `failed to open switch file ${path}`,
      device: "failed to create overlaybd device",
    };
    const reason = reasons[await failedStage(source)];
    await source.close();
    throw new ImageOpenError(reason, opening.where, error);
  }
}

/** When it fails, source and target stay open. */
async function openLayerIn(source: ByteSource, { target }: Opening, keepPinned: boolean): Promise<DeviceLayer> {
  if (target === undefined) return await openNativeLayer(source, { declared: true, keepPinned });
  const openLsmt = async (file: ByteSource) => await openWarpLayer(file, target.source);
  const layer = await openNativeLayer(source, { declared: true, keepPinned, openLsmt });
  return { ...layer, files: [...layer.files, target.file], blobBytes: layer.blobBytes + target.storedBytes };
}

/** What of a layer that was refused is wrong; a place that fails while that is looked up counts as what it failed at. */
async function failedStage(source: ByteSource): Promise<"tar" | "switch" | "device"> {
  if (source.size < MIN_LAYER_BYTES) return "switch";
  const payload = await openTarPayload(source).catch(() => undefined);
  if (payload === undefined) return "tar";
  try {
    if (isZFile(await payload.read(0, Math.min(ZFILE_RECORD_BYTES, payload.size)))) await openZFile(payload);
    return "device";
  } catch {
    return "switch";
  }
}

async function openRemote(opening: Opening, places: OpeningPlaces): Promise<DeviceLayer> {
  const { lower } = opening;
  const digest = digestOfLower(opening, places);
  const stated = lower.size > 0 ? lower.size : undefined;
  const place = await places.remote();
  const url = `/${places.repoBlobUrl}/${digest}`;
  const size = stated ?? (await askSize(place, digest, url, opening, places));
  try {
    return await openBlob(place, digest, size, opening, places);
  } catch (error) {
    const real = stated === undefined || !maySizeBeWrong(error) ? undefined : await place.blobSize(digest).catch(() => undefined);
    if (real === undefined || real === stated) throw error;
    places.notice(`${opening.where}.size is ${stated}, but blob ${digest} has ${real} bytes; the latter is used`);
    return await openBlob(place, digest, real, opening, places);
  }
}

/** Without a repository that is the reason, whatever else is wrong: it is looked at first. */
function digestOfLower({ lower, where, index }: Opening, { repoBlobUrl }: OpeningPlaces): Digest {
  const { digest } = lower;
  const reason = repoBlobUrl === "" ? EMPTY_REPOSITORY : `failed to open layer ${index}`;
  if (digest !== "") {
    try {
      return parseDigest(digest, "digest");
    } catch (error) {
      throw new ImageOpenError(reason, where, error);
    }
  }
  const looked = localPaths(lower);
  const tried = looked.length === 0 ? "has neither file, dir nor digest" : `there is no ${looked.join(", no ")}, and it has no digest`;
  throw new ImageOpenError(reason, where, new LazyError("NOT_FOUND", `the layer ${tried}; name its file, or the blob and its repository`));
}

/** A wrong size shows in answers, or in what is not where the layer's end should be. */
function maySizeBeWrong(error: unknown): boolean {
  return error instanceof LazyError && error.code === "CORRUPT";
}

async function askSize(place: BlobPlace, digest: Digest, url: string, opening: Opening, places: OpeningPlaces): Promise<number> {
  try {
    places.fetched.requests++;
    const size = await place.blobSize(digest);
    if (size !== undefined) return size;
    throw new LazyError("NOT_FOUND", `${place.name} has no blob ${digest}`);
  } catch (error) {
    throw new ImageOpenError(`${remoteWords(places.cache)} ${url}: ${remoteReason(error)}`, opening.where, error);
  }
}

/** Through a cache a blob is first asked for when its first bytes are needed, and result files say so. */
function remoteWords(cache: BlockCache | undefined): string {
  return cache === undefined ? "failed to open remote file" : "failed to open remote file as tar file";
}

async function openBlob(place: BlobPlace, digest: Digest, size: number, opening: Opening, places: OpeningPlaces): Promise<DeviceLayer> {
  const { dir } = opening.lower;
  const descriptor = { mediaType: "application/octet-stream", digest, size };
  const cache = await cacheFor(opening.lower, places);
  const switched = new SwitchedSource(await place.blobSource(descriptor), places.notice);
  const counted = new CountedSource(switched, places.fetched);
  const kept = cache?.source(digest, counted);
  const source = kept ?? counted;
  try {
    const layer = await openLayerIn(source, opening, kept === undefined);
    return dir === "" ? layer : { ...layer, downloadable: { directory: dir, descriptor, place, source: switched, kept } };
  } catch (error) {
    const url = `/${places.repoBlobUrl}/${digest}`;
    const isTransfer = error instanceof RegistryError || !(error instanceof LazyError && error.code === "CORRUPT");
    const stage = isTransfer ? "tar" : await failedStage(source);
    await source.close();
    const reasons = {
      tar: `${isTransfer ? remoteWords(cache) : "failed to open remote file as tar file"} ${url}: ${remoteReason(error)}`,
      switch: `failed to open switch file ${url}`,
      device: "failed to create overlaybd device",
    };
    throw new ImageOpenError(reasons[stage], opening.where, error);
  }
}

/** Where caches are in layers' directories, a layer needs a directory, and has to say its size. */
async function cacheFor({ dir, size }: LowerConfig, { cache, layerCaches }: OpeningPlaces): Promise<BlockCache | undefined> {
  if (layerCaches === undefined) return cache;
  return dir === "" || size === 0 ? undefined : await layerCaches.open(dir);
}
