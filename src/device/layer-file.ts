import { FileSource } from "../bytes/file.ts";
import type { ByteSource } from "../bytes/source.ts";
import { CachedSource } from "../cache/cached-source.ts";
import type { LsmtLayer } from "../formats/lsmt/lsmt-reader.ts";
import type { ZFileBlocks } from "../formats/zfile/zfile-reader.ts";
import type { CachedFileData } from "./cached-reader-worker.ts";
import type { DownloadableLayer } from "./layer-downloads.ts";

/** A layer of a device. */
export interface DeviceLayer {
  readonly lsmt: LsmtLayer;
  /** What is kept of each file of `lsmt`, in their order. */
  readonly files: readonly LayerFile[];
  /** Size of all blobs that the layer is read from. */
  readonly blobBytes: number;
  /** Where it can be downloaded to; undefined where it cannot, or need not. */
  readonly downloadable?: DownloadableLayer | undefined;
}

/** What is kept, outside of its place, of one of the files that the segments of a layer point to. */
export interface LayerFile {
  /** For threads that read what is kept on their own; undefined where nothing is. */
  readonly cached: CachedFileData | undefined;
  /** Drops what is kept of a range of the file, or distrusts who gave it, so that it is fetched anew; false if that would give the same. */
  discard(offset: number, length: number): boolean;
  /** Whether all of a range of the file is known to be kept. */
  isKept(offset: number, length: number): boolean;
}

/** Where a file lies in the bytes that are stored of it. */
export interface StoredFile {
  /** Of the ZFile, or of the file itself. */
  readonly payloadOffset: number;
  /** The ZFile that holds it; undefined when it is not compressed. */
  readonly blocks: ZFileBlocks | undefined;
}

/** A file in a blob that is read through `source`, or through a `reader` of it that may keep some of it, too. */
export function fileInBlob(source: ByteSource, { payloadOffset, blocks }: StoredFile, reader: ByteSource = source): LayerFile {
  if (source instanceof FileSource) {
    const { descriptor } = source;
    return { cached: { stored: { descriptor }, payloadOffset, blocks }, discard: () => false, isKept: () => true };
  }
  if (!(source instanceof CachedSource)) return { cached: undefined, discard: () => distrust(reader), isKept: () => false };
  return {
    cached: { stored: source.shared.data, payloadOffset, blocks },
    discard(offset, length) {
      const [start, end] = storedRange({ payloadOffset, blocks }, offset, length);
      source.discard(start, end - start);
      return true;
    },
    isKept: (offset, length) => isStored(source, ...storedRange({ payloadOffset, blocks }, offset, length)),
  };
}

/** Says that bytes of a source are wrong; false if there is no other way to get them. */
export function distrust(source: ByteSource): boolean {
  source.distrust?.();
  return source.distrust !== undefined;
}

/** A file in memory, which was checked when it got there. */
export function fileInMemory(stored: SharedArrayBuffer, blocks: ZFileBlocks | undefined): LayerFile {
  return { cached: { stored, payloadOffset: 0, blocks }, discard: () => false, isKept: () => true };
}

/** Decoded content, which is checked before it gets into the cache, and there whenever it is read. */
export function fileOfContent(cached: CachedSource | undefined): LayerFile {
  return {
    cached: cached === undefined ? undefined : { stored: cached.shared.data, payloadOffset: 0, blocks: undefined },
    discard: () => false,
    isKept: (offset, length) => cached !== undefined && isStored(cached, offset, offset + length),
  };
}

function isStored({ shared }: CachedSource, start: number, end: number): boolean {
  const { chunkBytes } = shared.data;
  for (let chunk = Math.floor(start / chunkBytes); chunk * chunkBytes < end; chunk++) if (!shared.isStored(chunk)) return false;
  return true;
}

function storedRange({ payloadOffset, blocks }: StoredFile, offset: number, length: number): [start: number, end: number] {
  if (blocks === undefined) return [payloadOffset + offset, payloadOffset + offset + length];
  const firstBlock = Math.floor(offset / blocks.blockSize);
  const endBlock = Math.min(Math.ceil((offset + length) / blocks.blockSize), blocks.offsets.length - 1);
  return [payloadOffset + blocks.offsets[firstBlock], payloadOffset + blocks.offsets[endBlock]];
}
