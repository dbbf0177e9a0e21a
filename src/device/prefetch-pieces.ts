import { LazyError, messageOf } from "../errors.ts";
import { MAX_RECORD_BYTES, type TraceRecord } from "../formats/trace/layout.ts";
import type { PrefetchFile } from "../formats/trace/prefetch-file.ts";
import type { PrefetchPath } from "../formats/trace/prefetch-list.ts";
import { lookupPath, type FilesystemReader } from "../tree/filesystem-reader.ts";
import { quoted } from "../tree/path.ts";
import type { Device } from "./device.ts";
import { openFilesystem } from "./open-filesystem.ts";
import { PrefetchLayers } from "./prefetch-layers.ts";

/** A part of one of a device's files, to be fetched in one go; at most 1 MiB. */
export interface PrefetchPiece {
  readonly file: number;
  readonly offset: number;
  readonly length: number;
}

/** Where an image's files lead to, a list may name at most so many of them. */
const MAX_LISTED_FILES = 100_000;

/**
 * What a trace or list means on a device, in its order. What the device does not have is left out: layers, or what lies behind the
 * end of a layer. Of a list, `onFailure` gets what cannot be found or read.
 */
export function prefetchPieces(device: Device, wanted: PrefetchFile, onFailure: (error: unknown) => void): AsyncGenerator<PrefetchPiece> {
  return wanted.kind === "trace" ? recordedPieces(device, wanted.records) : listedPieces(device, wanted.paths, onFailure);
}

async function* recordedPieces(device: Device, records: readonly TraceRecord[]): AsyncGenerator<PrefetchPiece> {
  const layers = new PrefetchLayers(device);
  const sizes = device.layers.flatMap(({ files }) => files.map(({ size }) => size));
  for (const { op, layer, offset, length } of records) {
    const file = op === "read" ? layers.fileOf(layer) : undefined;
    if (file !== undefined) yield* cut(file, offset, Math.min(length, sizes[file] - offset));
  }
}

function* cut(file: number, offset: number, length: number): Generator<PrefetchPiece> {
  for (let at = 0; at < length; at += MAX_RECORD_BYTES) {
    yield { file, offset: offset + at, length: Math.min(MAX_RECORD_BYTES, length - at) };
  }
}

async function* listedPieces(
  device: Device,
  paths: readonly PrefetchPath[],
  onFailure: (error: unknown) => void,
): AsyncGenerator<PrefetchPiece> {
  const filesystem = await openFilesystem(device);
  const seen = new Set<number>();
  for (const entry of paths) {
    try {
      for await (const inode of listedFiles(filesystem, entry)) {
        if (seen.has(inode)) continue;
        seen.add(inode);
        yield* filePieces(device, filesystem, inode);
        if (seen.size === MAX_LISTED_FILES)
          throw new LazyError("USAGE", `more than ${MAX_LISTED_FILES} files are listed; the rest is left out`);
      }
    } catch (error) {
      onFailure(new LazyError("NOT_FOUND", `line ${entry.line}: ${quoted(entry.path)}: ${messageOf(error)}`, { cause: error }));
      if (seen.size === MAX_LISTED_FILES) return;
    }
  }
}

/** Inodes of regular files: the one at a path, or all below a directory. */
async function* listedFiles(filesystem: FilesystemReader, { path, isDirectory }: PrefetchPath): AsyncGenerator<number> {
  const first = await lookupPath(filesystem, path);
  const { type } = await filesystem.inode(first);
  if (type !== (isDirectory ? "directory" : "file")) {
    throw new LazyError(
      "USAGE",
      isDirectory ? `is no directory, but a ${type}` : `is no file, but a ${type}; directories end with a slash`,
    );
  }
  if (!isDirectory) yield first;
  const pending = isDirectory ? [first] : [];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    for (const { inode } of await filesystem.list(directory)) {
      const { type: kind } = await filesystem.inode(inode);
      if (kind === "directory") pending.push(inode);
      else if (kind === "file") yield inode;
    }
  }
}

async function* filePieces(device: Device, filesystem: FilesystemReader, inode: number): AsyncGenerator<PrefetchPiece> {
  for (const extent of await filesystem.extents(inode)) {
    const parts: PrefetchPiece[] = [];
    device.forParts(extent.deviceOffset, extent.length, (file, offset, length) => parts.push(...cut(file, offset, length)));
    yield* parts;
  }
}
