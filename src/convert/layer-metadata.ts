import type { LsmtWriter } from "../formats/lsmt/lsmt-writer.ts";
import type { MappingList } from "../formats/lsmt/mapping-list.ts";
import type { FinishedPasses } from "./layer-writer.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";

export const SECTORS_PER_BLOCK = PAYLOAD_BLOCK_BYTES / 512;
/** Metadata blocks that are given to the compressor at a time. */
const METADATA_BATCH = 64;

/** Appends the metadata blocks of a layer, and maps them to where they belong on the device. */
export async function appendMetadata(
  lsmt: LsmtWriter,
  { blocks, metadataBlock }: Pick<FinishedPasses, "blocks" | "metadataBlock">,
  mappings: MappingList,
): Promise<void> {
  const bytes = Buffer.allocUnsafe(METADATA_BATCH * PAYLOAD_BLOCK_BYTES);
  for (let at = 0; at < blocks.metadata.length; at += METADATA_BATCH) {
    const batch = blocks.metadata.slice(at, at + METADATA_BATCH);
    for (const [index, block] of batch.entries()) bytes.set(metadataBlock(block), index * PAYLOAD_BLOCK_BYTES);
    const sector = await lsmt.append(bytes.subarray(0, batch.length * PAYLOAD_BLOCK_BYTES));
    for (const [index, block] of batch.entries()) {
      mappings.add(block * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK, sector + index * SECTORS_PER_BLOCK);
    }
  }
}
