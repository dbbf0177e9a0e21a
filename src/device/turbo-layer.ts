import { MemorySource, type ByteSource } from "../bytes/source.ts";
import type { BlockCache } from "../cache/block-cache.ts";
import { detectCompression } from "../compression/decompress.ts";
import { PlainSpans, type SpanIndex } from "../compression/span-index.ts";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import { parseGzipIndex } from "../formats/gzip-index/gzip-index-reader.ts";
import { openWarpLayer } from "../formats/lsmt/warp-layer.ts";
import { parseZstdIndex } from "../formats/zstd-index/zstd-index-reader.ts";
import { parseSpanDigests, type SpanDigests } from "../formats/span-digests/span-digests.ts";
import { isZFile, openZFile } from "../formats/zfile/zfile-reader.ts";
import { ZFILE_MAGIC } from "../formats/zfile/layout.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import type { BlobPlace, LayerPlaces } from "./blob-place.ts";
import { CachedContent } from "./cached-content.ts";
import { CountedSource } from "./counted-source.ts";
import { openLayerContent } from "./layer-content.ts";
import { fileInBlob, fileInMemory, fileOfContent, type DeviceLayer, type LayerFile } from "./layer-file.ts";
import type { TurboTarget } from "./turbo-annotations.ts";
import { readTurboBlob, type TurboParts } from "./turbo-blob.ts";

/**
 * Opens a turboOCI layer: its blob is fetched whole, the data that it points to is read by ranges from the blob that it was made
 * from. Closing `lsmt` of the result closes both.
 * Throws `NOT_FOUND` when the latter is not where the data should be, `CORRUPT` when the two or the parts of the layer contradict
 * themselves or each other.
 */
export async function openTurboLayer(descriptor: Descriptor, target: TurboTarget, places: LayerPlaces): Promise<DeviceLayer> {
  const { parts, name } = await fetchParts(descriptor, places);
  const metadata = await openMetadata(parts.metadata);
  const data = await openTarget(target, parts, name, places);
  try {
    const lsmt = await openWarpLayer(metadata.source, data.source);
    return { lsmt, files: [metadata.file, data.file], blobBytes: descriptor.size + data.storedBytes };
  } catch (error) {
    await data.source.close();
    throw error;
  }
}

async function fetchParts(descriptor: Descriptor, { layers, cache, fetched }: LayerPlaces): Promise<{ parts: TurboParts; name: string }> {
  const counted = new CountedSource(await layers.blobSource(descriptor), fetched);
  const source = cache?.source(descriptor.digest, counted) ?? counted;
  try {
    return { parts: await readTurboBlob(source, descriptor.digest), name: source.name };
  } finally {
    await source.close();
  }
}

async function openMetadata({ bytes, name }: TurboParts["metadata"]): Promise<{ source: ByteSource; file: LayerFile }> {
  const stored = new MemorySource(bytes, name);
  const isCompressed = isZFile(bytes.subarray(0, ZFILE_MAGIC.length));
  const zfile = isCompressed ? await openZFile(stored) : undefined;
  return { source: zfile ?? stored, file: fileInMemory(bytes.buffer, zfile?.blocks) };
}

/** The data of a turboOCI layer. */
export interface OpenedTarget {
  readonly source: ByteSource;
  readonly file: LayerFile;
  readonly storedBytes: number;
}

/** What says how a target is read. */
export type TargetParts = Pick<TurboParts, "gzipIndex" | "zstdIndex" | "spanDigests">;

/** Opens the blob that a layer's data is in. Throws `NOT_FOUND` when it is not in its place. `name` is the layer's, for messages. */
export async function openTarget(target: TurboTarget, parts: TargetParts, name: string, places: LayerPlaces): Promise<OpenedTarget> {
  const digests = parts.spanDigests && parseSpanDigests(parts.spanDigests.bytes, parts.spanDigests.name);
  const index = parseIndex(parts) ?? new PlainSpans(await plainSize(target, digests, name, places));
  const { storedBytes } = index;
  await checkPresence(target.digest, storedBytes, name, places);
  const descriptor = { mediaType: target.mediaType ?? "application/octet-stream", digest: target.digest, size: storedBytes };
  const blob = new CountedSource(await places.data.blobSource(descriptor), places.fetched);
  try {
    if (index instanceof PlainSpans) await checkPlain(blob, name);
    const content = openLayerContent(blob, index, digests);
    return { ...throughCache(content, index, contentKey(target.digest, parts), places.cache), storedBytes };
  } catch (error) {
    await blob.close();
    throw error;
  }
}

/**
 * Opens a target that is a file of its own; its content is kept in `cache` if that is given and something names the target.
 * When opening fails, `file` stays open.
 */
export async function openLocalTarget(
  file: ByteSource,
  parts: TargetParts,
  { digest, cache }: { readonly digest: Digest | undefined; readonly cache: BlockCache | undefined },
): Promise<OpenedTarget> {
  const index = parseIndex(parts);
  const storedBytes = file.size;
  if (index === undefined) {
    await checkPlain(file, file.name);
    return { source: file, file: fileInBlob(file, { payloadOffset: 0, blocks: undefined }), storedBytes };
  }
  const content = openLayerContent(file, index, undefined);
  if (digest === undefined) return { source: content, file: fileOfContent(undefined), storedBytes };
  return { ...throughCache(content, index, contentKey(digest, parts), cache), storedBytes };
}

function throughCache(
  content: ByteSource,
  index: SpanIndex,
  key: Digest,
  cache: BlockCache | undefined,
): Pick<OpenedTarget, "source" | "file"> {
  if (cache === undefined) return { source: content, file: fileOfContent(undefined) };
  const cached = cache.source(key, content);
  return { source: new CachedContent(content, cached, index), file: fileOfContent(cached) };
}

/** Undefined without an index, for a target that is not compressed. */
function parseIndex({ gzipIndex, zstdIndex }: TargetParts): SpanIndex | undefined {
  if (gzipIndex !== undefined) return parseGzipIndex(gzipIndex.bytes, gzipIndex.name);
  if (zstdIndex !== undefined) return parseZstdIndex(zstdIndex.bytes, zstdIndex.name);
  return undefined;
}

const INDEX_MEMBERS: readonly [RegExp, string][] = [
  [/[+.]gzip$/, "gzip.meta"],
  [/[+.]zstd$/, "zstd.meta"],
];

/** The size of a tar that is not compressed: nobody but its digests and the place that has it can know. */
async function plainSize(
  { digest, mediaType }: TurboTarget,
  digests: SpanDigests | undefined,
  name: string,
  { data }: LayerPlaces,
): Promise<number> {
  const missing = INDEX_MEMBERS.find(([compressed]) => compressed.test(mediaType ?? ""))?.[1];
  if (missing !== undefined) throw corrupt(`${name}: its data is in blob ${digest} of type ${mediaType}, but it has no ${missing}`);
  if (digests !== undefined) return digests.contentBytes;
  const size = await data.blobSize(digest);
  if (size === undefined) throw missingTarget(digest, name, data);
  return size;
}

/** Better now than at the first read of a file. */
async function checkPresence(digest: Digest, storedBytes: number, name: string, places: LayerPlaces): Promise<void> {
  const { data, fetched } = places;
  fetched.requests++;
  const found = await data.blobSize(digest).catch((error: unknown) => {
    goOnWithout(error, name, places);
    return storedBytes;
  });
  if (found === undefined) throw missingTarget(digest, name, data);
  if (found === storedBytes) return;
  throw corrupt(
    `${name}: its data is in blob ${digest}, which the layer says has ${storedBytes} bytes; in ${data.name} it has ${found} bytes`,
  );
}

/** What a cache has can be read while its place is not available, and the place may be back when more is needed. Throws the error where it matters. */
function goOnWithout(error: unknown, name: string, { cache, notice }: LayerPlaces): void {
  const isPassing = error instanceof LazyError && error.code === "UNAVAILABLE";
  if (!isPassing || cache === undefined || notice === undefined) throw error;
  notice(`${name}: ${messageOf(error)}; opened without looking whether the data is there`);
}

function missingTarget(digest: Digest, name: string, { name: place }: BlobPlace): LazyError {
  return new LazyError(
    "NOT_FOUND",
    `${name}: its data is in blob ${digest}, a layer of the image that it was converted from, which ${place} does not have; ` +
      "name the repository that has it with --data-repository",
  );
}

/** Nothing else would tell that the bytes of a compressed blob are not those of the tar in it. */
async function checkPlain(blob: ByteSource, name: string): Promise<void> {
  const compression = detectCompression(await blob.read(0, Math.min(4, blob.size)));
  if (compression === "none") return;
  throw corrupt(`${name}: its data is in ${blob.name}, which is compressed with ${compression}, but the layer has no index of it`);
}

/** Content of one blob is shared by layers that decode it in the same way; one with an index that lies does not spoil it for others. */
function contentKey(target: Digest, { gzipIndex, zstdIndex, spanDigests }: TargetParts): Digest {
  const parts = [gzipIndex, zstdIndex, spanDigests].map((part) => (part === undefined ? "none" : digestOf(part.bytes)));
  return digestOf(Buffer.from(["uncompressed content", target, ...parts].join("\n")));
}
