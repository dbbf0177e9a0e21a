import { MemorySink } from "../../src/bytes/sink.ts";
import { ErofsWriter } from "../../src/formats/erofs/erofs-writer.ts";
import { LsmtWriter } from "../../src/formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../../src/formats/lsmt/mapping-list.ts";
import type { FileRun, LayerBlocks, PayloadEntry } from "../../src/tree/filesystem-writer.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import { contentOf, readTar, type ReadMember } from "./tar-events.ts";

const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;

/** LSMT layers, the lowest first, of an EROFS filesystem with what is in the archives. */
export async function erofsLayerBlobs(tars: readonly Uint8Array[], bytes = 2 ** 30): Promise<Uint8Array[]> {
  const writer = ErofsWriter.format({ bytes, uuid: Buffer.from("0123456789abcdef") });
  const blobs: Uint8Array[] = [];
  for (const tar of tars) {
    const { entries, payload } = payloadOf(readTar(tar));
    writer.beginLayer(payload.length / BLOCK_BYTES);
    for (const change of layerChanges(entries)) writer.apply(change);
    blobs.push(await layerBlob(writer, writer.finishLayer(), payload, bytes));
  }
  return blobs;
}

function payloadOf(members: readonly ReadMember[]): { entries: PayloadEntry[]; payload: Buffer } {
  const pieces: Buffer[] = [];
  let payloadBlocks = 0;
  const entries = members.map((member): PayloadEntry => {
    const runs = runsOf(member);
    const payloadBlock = payloadBlocks;
    const content = contentOf(member);
    for (const { fileBlock, blocks } of runs) {
      const piece = Buffer.alloc(blocks * BLOCK_BYTES);
      content.copy(piece, 0, fileBlock * BLOCK_BYTES);
      pieces.push(piece);
      payloadBlocks += blocks;
    }
    return { ...member, payloadBlock, runs };
  });
  return { entries, payload: Buffer.concat(pieces) };
}

/** The blocks that a file has data in. */
function runsOf({ extents }: ReadMember): FileRun[] {
  const runs: FileRun[] = [];
  for (const { offset, length } of extents) {
    const last = runs.at(-1);
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    const first = Math.max(Math.floor(offset / BLOCK_BYTES), last ? last.fileBlock + last.blocks : 0);
    if (end > first) runs.push({ fileBlock: first, blocks: end - first });
  }
  return runs;
}

async function layerBlob(writer: ErofsWriter, blocks: LayerBlocks, payload: Buffer, virtualSize: number): Promise<Uint8Array> {
  const sink = new MemorySink();
  const lsmt = new LsmtWriter(sink, { virtualSize });
  const mappings = new MappingList();
  const payloadSector = await lsmt.append(payload);
  for (const { block, payloadBlock, blocks: count } of blocks.payload) {
    mappings.add(block * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK, payloadSector + payloadBlock * SECTORS_PER_BLOCK);
  }
  for (const block of blocks.metadata) {
    mappings.add(block * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK, await lsmt.append(writer.metadataBlock(block)));
  }
  await lsmt.close(mappings);
  return sink.bytes();
}
