import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { decompress } from "../../compression/decompress.ts";
import type { LayerIndex } from "../../convert/layer-index.ts";
import { mapToTar } from "../../convert/tar-mappings.ts";
import { LazyError, unsupported } from "../../errors.ts";
import { ErofsWriter } from "../../formats/erofs/erofs-writer.ts";
import { Ext4Writer } from "../../formats/ext4/ext4-writer.ts";
import { SECTOR_BYTES } from "../../formats/lsmt/layout.ts";
import { MappingList } from "../../formats/lsmt/mapping-list.ts";
import { WarpUpper } from "../../formats/lsmt/warp-upper.ts";
import type { WritableStack } from "../../formats/lsmt/writable-stack.ts";
import type { FilesystemWriter } from "../../tree/filesystem-writer.ts";
import type { Environment } from "../environment.ts";
import { applyEntries, extracting, newExt4, writeMetadata } from "./filesystem-layer.ts";
import { readHeaderDump } from "./header-dump.ts";
import { openWritableImage, type ImageOptions, type WritableImage } from "./image-layers.ts";
import { checkDigest, openTarFile, scanArchive } from "./tar-input.ts";

export interface TurboApply extends ImageOptions {
  readonly input: string;
  /** The input is a dump of tar headers. */
  readonly isDump: boolean;
  readonly filesystem: "ext4" | "erofs";
  readonly makeFilesystem: boolean;
  /** The index of a gzipped input goes there. */
  readonly gzipIndexPath: string;
  /** What the uncompressed tar is to have; "": anything. */
  readonly checksum: string;
  readonly verbose: boolean;
}

type Entries = Awaited<ReturnType<typeof readHeaderDump>>;

/** Applies a layer to an image, of files their metadata only: their data is mapped to the layer's uncompressed tar. */
export async function applyTurbo(options: TurboApply, environment: Environment): Promise<void> {
  const image = await openWritableImage(options, environment);
  try {
    const { device } = image;
    const { upper } = device;
    if (!(upper instanceof WarpUpper))
      throw new LazyError(
        "USAGE",
        `${options.configPath}: upper.target is missing: a turboOCI layer needs upper.data, upper.index and upper.target`,
      );
    const layer = await extracting(async () =>
      options.isDump ? await readDump(options.input, environment) : await readTar(options, environment),
    );
    if (options.verbose) environment.stderr.write(`${layer.entries.count} entries, ${layer.payloadBlocks} blocks of data\n`);
    const filesystem = await openFilesystem(image, options);
    const blocks = await extracting(async () => applyEntries(filesystem, layer.entries, layer.payloadBlocks));
    await writeMetadata(filesystem, blocks.metadata, device);
    const mappings = new MappingList();
    mapToTar(layer.entries, blocks.payload, { mappings, hidesBelow: true, name: options.input });
    await mapData(mappings, upper, device);
    await device.flush();
  } finally {
    await image.close();
  }
}

/** Writes the index that a gzipped layer needs to be read in the middle. Throws `UNSUPPORTED` where there is none. */
export async function writeGzipIndex(index: LayerIndex, path: string, name: string): Promise<void> {
  if (index.compression === "none") return;
  if (index.compression === "zstd")
    throw unsupported(`${name}: compressed with zstd, of which turboOCI layers cannot be read: expected a tar, gzipped or not`);
  if (index.file === undefined) throw unsupported(`${name}: ${index.unindexable ?? "cannot be indexed"}`);
  await writeFile(path, index.file.bytes, { mode: 0o644 });
}

async function readDump(input: string, { signal }: Environment): Promise<Entries> {
  const { stream } = await decompress(await openTarFile(input, signal), input);
  return await readHeaderDump(stream, input);
}

async function readTar({ input, gzipIndexPath, checksum }: TurboApply, environment: Environment): Promise<Entries> {
  const stored = await openTarFile(input, environment.signal);
  await using archive = await scanArchive(stored, input, { payload: false, indexed: true }, environment);
  const { entries, payloadBlocks, index, diffId } = archive.scan;
  checkDigest(diffId, checksum);
  if (index !== undefined) await writeGzipIndex(index, gzipIndexPath, input);
  return { entries, payloadBlocks };
}

async function openFilesystem({ device, hasLowers }: WritableImage, { filesystem, makeFilesystem }: TurboApply): Promise<FilesystemWriter> {
  if (filesystem === "erofs") return hasLowers ? await ErofsWriter.open(device) : newErofs(device);
  if (!makeFilesystem) return await Ext4Writer.open(device);
  await device.discard(0, device.size);
  return newExt4(device.size);
}

function newErofs({ size }: WritableStack): ErofsWriter {
  return ErofsWriter.format({
    bytes: size,
    uuid: createHash("sha256").update(`lazylayer erofs of ${size} bytes`).digest().subarray(0, 16),
  });
}

async function mapData(mappings: MappingList, upper: WarpUpper, device: WritableStack): Promise<void> {
  const { count, firstSector, sectors, mappedSector, zeroed } = mappings;
  for (let i = 0; i < count; i++) {
    const [offset, length] = [firstSector[i] * SECTOR_BYTES, sectors[i] * SECTOR_BYTES];
    if (zeroed[i] === 1) await device.discard(offset, length);
    else await upper.mapTarget(offset, length, mappedSector[i] * SECTOR_BYTES);
  }
}
