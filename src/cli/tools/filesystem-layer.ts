import { createHash } from "node:crypto";
import type { BlockDevice } from "../../bytes/block-device.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { LazyError } from "../../errors.ts";
import { Ext4Writer } from "../../formats/ext4/ext4-writer.ts";
import type { FilesystemWriter, LayerBlocks, PayloadEntry } from "../../tree/filesystem-writer.ts";
import { layerChanges, type LayerEntries } from "../../tree/layer-changes.ts";

const BLOCK_BYTES = 4096;
/** Read and written at a time. */
const PIECE_BLOCKS = 256;

/** A new ext4 in memory. It depends on the device's size alone, so that the same archive gives the same image. */
export function newExt4(deviceBytes: number): Ext4Writer {
  const name = createHash("sha256").update(`lazylayer ext4 of ${deviceBytes} bytes`).digest();
  return Ext4Writer.format({ bytes: deviceBytes, uuid: asUuid(name.subarray(0, 16)), hashSeed: name.subarray(16) });
}

/** Marks 16 bytes as a UUID of version 8, whose other bits are free (RFC 9562). */
function asUuid(bytes: Uint8Array): Uint8Array {
  const uuid = new Uint8Array(bytes);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

/** Makes an empty ext4 on a device that reads as zeros. */
export async function makeExt4(device: Pick<BlockDevice, "size" | "write">): Promise<void> {
  const filesystem = newExt4(device.size);
  filesystem.beginLayer(0);
  const { metadata } = filesystem.finishLayer();
  await writeMetadata(filesystem, metadata, device);
}

/** Says of what fails that it failed to extract an archive. */
export async function extracting<R>(run: () => Promise<R>): Promise<R> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof LazyError) throw new LazyError(error.code, `failed to extract: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Applies a layer's entries to a filesystem; says what belongs where. */
export function applyEntries(filesystem: FilesystemWriter, entries: LayerEntries<PayloadEntry>, payloadBlocks: number): LayerBlocks {
  filesystem.beginLayer(payloadBlocks);
  for (const change of layerChanges(entries)) filesystem.apply(change);
  return filesystem.finishLayer();
}

/** Writes a layer's payload and its metadata to where they belong. */
export async function writeLayer(
  filesystem: FilesystemWriter,
  { payload, metadata }: LayerBlocks,
  content: ByteSource,
  device: BlockDevice,
  signal: AbortSignal,
): Promise<void> {
  for (const { block, payloadBlock, blocks } of payload) {
    for (let at = 0; at < blocks; at += PIECE_BLOCKS) {
      signal.throwIfAborted(); // what is written so far is in blocks that are free
      const count = Math.min(PIECE_BLOCKS, blocks - at);
      const bytes = await content.read((payloadBlock + at) * BLOCK_BYTES, count * BLOCK_BYTES);
      await device.write((block + at) * BLOCK_BYTES, bytes);
    }
  }
  await writeMetadata(filesystem, metadata, device);
  await device.flush();
}

/** Writes metadata in the order of its place on the device, neighbours together. */
export async function writeMetadata(
  filesystem: FilesystemWriter,
  metadata: readonly number[],
  device: Pick<BlockDevice, "write">,
): Promise<void> {
  const blocks = [...metadata].sort((a, b) => a - b);
  for (let at = 0; at < blocks.length;) {
    let end = at + 1;
    while (end < blocks.length && blocks[end] === blocks[at] + end - at && end - at < PIECE_BLOCKS) end++;
    const bytes = Buffer.concat(blocks.slice(at, end).map((block) => filesystem.metadataBlock(block)));
    await device.write(blocks[at] * BLOCK_BYTES, bytes);
    at = end;
  }
}
