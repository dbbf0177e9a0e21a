import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { DiskFile } from "../../bytes/file.ts";
import { extentsOf } from "../../device/device-extents.ts";
import { LazyError, messageOf, unsupported } from "../../errors.ts";
import { WarpUpper } from "../../formats/lsmt/warp-upper.ts";
import type { WritableStack } from "../../formats/lsmt/writable-stack.ts";
import type { Environment } from "../environment.ts";
import { findDataExtents } from "./data-extents.ts";
import { openWritableImage, type ImageOptions } from "./image-layers.ts";

const PIECE_BYTES = 1 << 20;
const BLOCK_BYTES = 4096;

/**
 * Gives an image's device another size, and the ext4 on it. resize2fs does the filesystem, on a copy of what the device holds;
 * what that changed is written to the device. Until then the image is only read; nobody else writes to it meanwhile.
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
      const { device, close } = await openWritableImage(image, environment);
      try {
        if (device.upper instanceof WarpUpper)
          throw unsupported(`${image.configPath}: the upper is of a turboOCI layer, whose filesystem cannot be resized`);
        await copyDevice(device, copy, environment.signal);
        if (verbose) environment.stderr.write(`device of ${device.size} bytes, copied to ${path}\n`);
        if (bytes > device.size) await copy.truncate(bytes);
        await resize2fs(path, bytes, environment.signal);
        await writeBack(device, copy, bytes);
      } finally {
        await close();
      }
    } finally {
      await copy.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Copies what a device holds, holes left out. */
async function copyDevice(device: WritableStack, copy: DiskFile, signal: AbortSignal): Promise<void> {
  await copy.truncate(device.size);
  let at = 0;
  for (const { bytes, isHole } of extentsOf(device.segments, 0, device.size)) {
    const end = at + bytes;
    if (isHole) at = end;
    while (at < end) {
      signal.throwIfAborted();
      const piece = await device.read(at, Math.min(PIECE_BYTES, end - at));
      await copy.write(at, piece);
      at += piece.length;
    }
  }
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
async function writeBack(device: WritableStack, copy: DiskFile, bytes: number): Promise<void> {
  const extents = await findDataExtents(copy.name);
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
