import type { BlockDevice } from "../bytes/block-device.ts";
import { DiskFile } from "../bytes/file.ts";
import type { ProcessLock } from "../daemon/process-lock.ts";
import { lockUpper } from "../daemon/upper-lock.ts";
import type { Device } from "../device/device.ts";
import { extentsOf } from "../device/device-extents.ts";
import { exists } from "../device/image-config-file.ts";
import { openUnsynced } from "../device/unsynced-file.ts";
import { LazyError, unsupported } from "../errors.ts";
import type { NbdExport } from "../export/nbd/nbd-export.ts";
import { AppendLayer } from "../formats/lsmt/append-layer.ts";
import { writableFormOf } from "../formats/lsmt/unsealed-layer.ts";
import type { UnsyncedPlace } from "../formats/lsmt/unsynced-log.ts";
import { openWritableStack } from "../formats/lsmt/writable-stack.ts";

/** The two files of a writable layer. */
export interface UpperFiles {
  readonly data: string;
  readonly index: string;
}

/** An image's device as clients see it: as it is, and what is cached of it at once. */
export function readOnlyExport(device: Device, name: string): NbdExport {
  return {
    name,
    content: device,
    reader: device.cachedReader,
    extentsOf: (offset, length) => extentsOf([device.segments], offset, length),
  };
}

/**
 * Puts an append-only writable layer on top of a device; one whose files are both missing is made. Closing its content closes the layer and
 * the device; when this fails, the device stays open.
 * Throws `USAGE` where only one of the files is there, `UNAVAILABLE` where another process writes to the layer.
 */
export async function openOnTop(
  device: Device,
  upper: UpperFiles,
  notice: (message: string) => void,
): Promise<Pick<NbdExport, "extentsOf"> & { content: BlockDevice }> {
  const files = await openUpperFiles(upper);
  let lock: ProcessLock | undefined;
  let place: UnsyncedPlace | undefined;
  try {
    lock = await lockUpper(upper.data, "--upper");
    place = await openUnsynced(upper.index, notice);
    const layer = files.isNew ? await createUpper(files, device.size, place) : await openUpper(files, place);
    const stack = await openWritableStack(device, layer);
    return { content: closing(stack, lock), extentsOf: (offset, length) => extentsOf(stack.segments, offset, length) };
  } catch (error) {
    lock?.close();
    for (const file of [files.data, files.index, place?.file]) await file?.close();
    throw error;
  }
}

interface OpenedFiles {
  readonly data: DiskFile;
  readonly index: DiskFile;
  readonly isNew: boolean;
}

async function openUpperFiles({ data, index }: UpperFiles): Promise<OpenedFiles> {
  const [hasData, hasIndex] = [await exists(data), await exists(index)];
  if (hasData !== hasIndex) {
    const [found, missing] = hasData ? [data, index] : [index, data];
    throw new LazyError("USAGE", `--upper: ${found} exists, ${missing} does not; name both files of a writable layer, or two new ones`);
  }
  const open = async (path: string): Promise<DiskFile> => await (hasData ? DiskFile.open(path) : DiskFile.create(path));
  const dataFile = await open(data);
  try {
    return { data: dataFile, index: await open(index), isNew: !hasData };
  } catch (error) {
    await dataFile.close();
    throw error;
  }
}

async function createUpper({ data, index }: OpenedFiles, virtualSize: number, place?: UnsyncedPlace): Promise<AppendLayer> {
  return await AppendLayer.create(data, index, { virtualSize }, place);
}

async function openUpper({ data, index }: OpenedFiles, place?: UnsyncedPlace): Promise<AppendLayer> {
  if ((await writableFormOf(data)) === "sparse") {
    throw unsupported(`--upper: ${data.name} is a sparse layer; only append-only ones can be served`);
  }
  return await AppendLayer.open(data, index, place);
}

function closing(device: BlockDevice, lock: ProcessLock): BlockDevice {
  return {
    name: device.name,
    size: device.size,
    read: async (offset, length) => await device.read(offset, length),
    write: async (offset, bytes) => await device.write(offset, bytes),
    discard: async (offset, length) => await device.discard(offset, length),
    flush: async () => await device.flush(),
    close: async () => {
      try {
        await device.close();
      } finally {
        lock.close();
      }
    },
  };
}
