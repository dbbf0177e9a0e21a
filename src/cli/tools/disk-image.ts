import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import type { BlockDevice } from "../../bytes/block-device.ts";
import { FileSource } from "../../bytes/file.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, LazyError, messageOf, unsupported } from "../../errors.ts";
import type { Environment } from "../environment.ts";
import { findRootFilesystems, type DiskRange } from "./disk-partitions.ts";

const MAX_OUTPUT_BYTES = 256 << 20;
/** Copied at a time. */
const PIECE_BYTES = 1 << 20;

const diskInfo = z.object({
  "virtual-size": z.int().nonnegative(),
  "backing-filename": z.string().optional(),
  "format-specific": z.object({ data: z.object({ "data-file": z.string().optional() }) }).optional(),
});

/** Parts of a disk, ascending. */
const diskMap = z.array(
  z.object({ start: z.int().nonnegative(), length: z.int().nonnegative(), zero: z.boolean(), data: z.boolean(), present: z.boolean() }),
);

/**
 * Copies a qcow2 disk onto a device: its root filesystems one after the other, or with `whole` all of it. What the disk does not
 * have allocated is not written. Throws `UNSUPPORTED` for disks that need other files.
 */
export async function copyDisk(path: string, device: BlockDevice, whole: boolean, environment: Environment): Promise<void> {
  const file = resolve(path);
  const info = diskInfo.parse(await qemuImg(["info", "--output=json", "-f", "qcow2", file], environment.signal));
  const other = info["backing-filename"] ?? info["format-specific"]?.data["data-file"];
  if (other !== undefined) throw unsupported(`${path}: needs another file, ${other}; make one disk of them with qemu-img convert -O qcow2`);
  const map = diskMap.parse(await qemuImg(["map", "--output=json", "-f", "qcow2", file], environment.signal));
  const directory = await mkdtemp(join(environment.temporaryDirectory, "lazylayer-disk-"));
  try {
    const raw = join(directory, "disk.raw");
    await qemuImg(["convert", "-f", "qcow2", "-O", "raw", file, raw], environment.signal);
    const disk = await FileSource.open(raw);
    try {
      await copyRanges(disk, await keptRanges(disk, path, whole, environment), map, device);
    } finally {
      await disk.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  await device.flush();
}

async function keptRanges(disk: ByteSource, path: string, whole: boolean, { stderr }: Environment): Promise<DiskRange[]> {
  const found = whole ? [] : await findRootFilesystems(disk);
  if (found.length > 0) return found;
  if (!whole) stderr.write(`overlaybd-apply: ${path}: no root filesystem was found; the whole disk is copied\n`);
  return [{ offset: 0, length: disk.size }];
}

async function copyRanges(
  disk: ByteSource,
  ranges: readonly DiskRange[],
  map: z.infer<typeof diskMap>,
  device: BlockDevice,
): Promise<void> {
  const bytes = ranges.reduce((sum, { length }) => sum + length, 0);
  if (bytes > device.size) throw new LazyError("USAGE", `${device.name}: a device of ${device.size} bytes, the disk needs ${bytes}`);
  let target = 0;
  for (const range of ranges) {
    for (const { start, length, zero, data, present } of map) {
      const from = Math.max(start, range.offset);
      const to = Math.min(start + length, range.offset + range.length);
      const at = target + from - range.offset;
      if (from >= to) continue;
      if (data && !zero) await copy(disk, from, to, device, at);
      else if (zero && present) await device.discard(at, to - from);
    }
    target += range.length;
  }
}

async function copy(disk: ByteSource, from: number, to: number, device: BlockDevice, target: number): Promise<void> {
  for (let at = from; at < to; at += PIECE_BYTES) {
    await device.write(target + at - from, await disk.read(at, Math.min(PIECE_BYTES, to - at)));
  }
}

const execute = promisify(execFile);

/** Runs qemu-img; gives what it prints, if that is JSON. */
async function qemuImg(args: readonly string[], signal: AbortSignal): Promise<unknown> {
  let output: string;
  try {
    output = (await execute("qemu-img", args, { maxBuffer: MAX_OUTPUT_BYTES, signal })).stdout;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof Error && "code" in error && error.code === "ENOENT")
      throw new LazyError("UNAVAILABLE", "qemu-img is not installed, which qcow2 disks are read with; it is in Debian's qemu-utils", {
        cause: error,
      });
    throw corrupt(`qemu-img ${args[0]}: ${messageOf(error).trim().split("\n").at(-1)}`, { cause: error });
  }
  return output.trimStart().startsWith("{") || output.trimStart().startsWith("[") ? (JSON.parse(output) as unknown) : undefined;
}
