import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { DiskFile } from "../../bytes/file.ts";
import { LazyError, messageOf, unsupported } from "../../errors.ts";
import { SECTOR_BYTES } from "../../formats/lsmt/layout.ts";
import { ZEROS } from "../../formats/lsmt/segment-table.ts";
import { stackLayers, type StackSource } from "../../formats/lsmt/stack.ts";
import { WarpUpper } from "../../formats/lsmt/warp-upper.ts";
import type { WritableStack } from "../../formats/lsmt/writable-stack.ts";
import type { Environment } from "../environment.ts";
import { findDataExtents } from "./data-extents.ts";
import { openImageLayers, openWritableImage, type ImageOptions } from "./image-layers.ts";

const PIECE_BYTES = 1 << 20;
const BLOCK_BYTES = 4096;

/**
 * Gives an image's device another size, and the ext4 on it. resize2fs does the filesystem, on a copy of what the device holds;
 * what that changed is written to the device. Until then nothing of the image is touched.
 */
export async function resizeFilesystem(
  image: ImageOptions,
  bytes: number,
  { verbose, environment }: { readonly verbose: boolean; readonly environment: Environment },
): Promise<void> {
  const directory = await mkdtemp(join(environment.temporaryDirectory, "lazylayer-resize-"));
  try {
    const path = join(directory, "device.raw");
    const copy = await DiskFile.create(path);
    try {
      await checkWritable(image, environment);
      const sizeBefore = await copyDevice(image, copy, environment);
      if (verbose) environment.stderr.write(`device of ${sizeBefore} bytes, copied to ${path}\n`);
      if (bytes > sizeBefore) await copy.truncate(bytes);
      await resize2fs(path, bytes, environment.signal);
      await writeBack(image, copy, bytes, environment);
    } finally {
      await copy.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function checkWritable(image: ImageOptions, environment: Environment): Promise<void> {
  const { device, close } = await openWritableImage(image, environment);
  const isWarp = device.upper instanceof WarpUpper;
  await close();
  if (isWarp) throw unsupported(`${image.configPath}: the upper is of a turboOCI layer, whose filesystem cannot be resized`);
}

/** Copies what a device holds, holes left out; answers its size. */
async function copyDevice(image: ImageOptions, copy: DiskFile, environment: Environment): Promise<number> {
  const { layers, close } = await openImageLayers(image, environment);
  try {
    const device = stackLayers(layers);
    await copy.truncate(device.size);
    for (const { offset, length } of heldRanges(device)) {
      for (let at = offset; at < offset + length; at += PIECE_BYTES) {
        environment.signal.throwIfAborted();
        await copy.write(at, await device.read(at, Math.min(PIECE_BYTES, offset + length - at)));
      }
    }
    return device.size;
  } finally {
    await close();
  }
}

function heldRanges({ segments, size }: StackSource): { offset: number; length: number }[] {
  const ranges: { offset: number; length: number }[] = [];
  segments.forRange(0, Math.floor(size / SECTOR_BYTES), (firstSector, sectors, mappedSector) => {
    if (mappedSector !== ZEROS) ranges.push({ offset: firstSector * SECTOR_BYTES, length: sectors * SECTOR_BYTES });
  });
  return ranges;
}

async function resize2fs(path: string, bytes: number, signal: AbortSignal): Promise<void> {
  try {
    await promisify(execFile)("resize2fs", ["-f", path, `${bytes / 1024}K`], {
      signal,
      env: { LC_ALL: "C", PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof Error && "code" in error && error.code === "ENOENT")
      throw new LazyError("UNAVAILABLE", "resize2fs is not installed, which resizes ext4; it is in Debian's e2fsprogs", { cause: error });
    throw new LazyError("UNAVAILABLE", `resize2fs: ${complaintOf(error)}`, { cause: error });
  }
}

/** What a program said, without the line that says which one it is. */
function complaintOf(error: unknown): string {
  const said = error instanceof Error && "stderr" in error && typeof error.stderr === "string" ? error.stderr : messageOf(error);
  return said
    .split("\n")
    .filter((line) => line.trim() !== "" && !line.startsWith("resize2fs "))
    .join(" ");
}

/** Makes the device what the copy is. A larger device comes before its filesystem, a smaller one after. */
async function writeBack(image: ImageOptions, copy: DiskFile, bytes: number, environment: Environment): Promise<void> {
  const extents = await findDataExtents(copy.name);
  const { device, close } = await openWritableImage(image, environment);
  try {
    if (bytes > device.size) await device.resize(bytes);
    let settled = 0;
    for (const { offset, length } of extents) {
      const end = Math.min(offset + length, bytes);
      if (offset >= end) break;
      await device.discard(settled, offset - settled);
      for (let at = offset; at < end; at += PIECE_BYTES) await writeDifference(copy, device, at, Math.min(PIECE_BYTES, end - at));
      settled = end;
    }
    await device.discard(settled, bytes - settled);
    if (bytes < device.size) await device.resize(bytes);
    await device.flush();
  } finally {
    await close();
  }
}

/** Writes the blocks of a range that differ. */
async function writeDifference(copy: DiskFile, device: WritableStack, offset: number, length: number): Promise<void> {
  const [wanted, found] = [await copy.read(offset, length), await device.read(offset, length)];
  const differs = (at: number): boolean =>
    Buffer.compare(wanted.subarray(at, at + BLOCK_BYTES), found.subarray(at, at + BLOCK_BYTES)) !== 0;
  for (let at = 0; at < length; at += BLOCK_BYTES) {
    if (!differs(at)) continue;
    let end = at + BLOCK_BYTES;
    while (end < length && differs(end)) end += BLOCK_BYTES;
    await device.write(offset + at, wanted.subarray(at, end));
    at = end;
  }
}
