import type { CompressedBatch } from "../compression/block-codec.ts";
import { LsmtWriter } from "../formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import { ZFileWriter } from "../formats/zfile/zfile-writer.ts";
import { PAYLOAD_OFFSET, payloadHead, payloadTail } from "../tar/payload.ts";
import type { BlobSpool } from "./blob-spool.ts";
import { ConvertedLayer } from "./converted-layer.ts";
import { overlaybdDescriptor } from "./image-format.ts";
import { appendMetadata, SECTORS_PER_BLOCK } from "./layer-metadata.ts";
import type { FinishedPasses, LayerWriter, LayerWriterOptions } from "./layer-writer.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";

/**
 * Writes one overlaybd layer blob: an LSMT layer in a ZFile in a tar. Payload goes in as it comes, before it is known where
 * on the device it belongs; metadata follows, then the index that gives both their place.
 */
export class OverlaybdLayerWriter implements LayerWriter {
  readonly needsPayload = true;
  readonly needsIndex = false;
  readonly #options: LayerWriterOptions;
  readonly #spool: BlobSpool;
  readonly #zfile: ZFileWriter;
  readonly #lsmt: LsmtWriter;
  #payloadSector: number | undefined;
  #started = false;

  constructor(options: LayerWriterOptions) {
    const { spool, virtualSize, uuid, parentUuid, compress } = options;
    this.#options = options;
    this.#spool = spool;
    this.#zfile = new ZFileWriter(
      { write: async (bytes) => await this.#writeSpool(bytes) },
      { algorithm: "lz4", blockSize: PAYLOAD_BLOCK_BYTES, compress, overwriteHeader: true },
    );
    this.#lsmt = new LsmtWriter(this.#zfile, { virtualSize, uuid, ...(parentUuid !== undefined && { parentUuid }) });
  }

  /** Appends payload: whole blocks, compressed. */
  async appendPayload(batch: CompressedBatch, payloadBytes: number): Promise<void> {
    const sector = await this.#lsmt.appendThrough(payloadBytes, async () => await this.#zfile.writeBatch(batch, payloadBytes));
    this.#payloadSector ??= sector;
  }

  /** Appends the metadata and ends the blob. */
  async finish({ blocks, metadataBlock }: FinishedPasses): Promise<ConvertedLayer> {
    const mappings = new MappingList();
    for (const { block, payloadBlock, blocks: count } of blocks.payload) {
      const sector = (this.#payloadSector ?? 0) + payloadBlock * SECTORS_PER_BLOCK;
      mappings.add(block * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK, sector);
    }
    await appendMetadata(this.#lsmt, { blocks, metadataBlock }, mappings);
    await this.#lsmt.close(mappings);
    const summary = await this.#zfile.close();
    await this.#spool.write(payloadTail(summary.bytes));
    await this.#spool.patch(0, payloadHead(summary.bytes));
    await this.#spool.patch(PAYLOAD_OFFSET, summary.header);
    const { family, filesystem } = this.#options;
    const { size } = this.#spool;
    return ConvertedLayer.made(this.#spool, (digest) => ({
      descriptor: overlaybdDescriptor({ digest, size }, family, filesystem),
      diffId: digest,
    }));
  }

  async #writeSpool(bytes: Uint8Array): Promise<void> {
    // The wrapper's first bytes name the payload's size: room now, content at the end.
    if (!this.#started) await this.#spool.write(new Uint8Array(PAYLOAD_OFFSET));
    this.#started = true;
    await this.#spool.write(bytes);
  }
}
