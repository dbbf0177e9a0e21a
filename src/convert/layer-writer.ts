import type { CompressBlocks, CompressedBatch } from "../compression/block-codec.ts";
import type { MediaTypeFamily } from "../oci/media-types.ts";
import type { LayerBlocks } from "../tree/filesystem-writer.ts";
import type { BlobSpool } from "./blob-spool.ts";
import type { ConvertedLayer } from "./converted-layer.ts";
import type { FilesystemType } from "./image-format.ts";
import type { LayerIdentity } from "./layer-identity.ts";
import type { LayerScan } from "./layer-scan.ts";

export interface LayerWriterOptions extends LayerIdentity {
  /** What to call the layer in messages. */
  readonly name: string;
  readonly spool: BlobSpool;
  readonly family: MediaTypeFamily;
  readonly filesystem: FilesystemType;
  readonly compress: CompressBlocks;
}

/** What a layer's data pass and the metadata pass give to each form that it is written in. */
export interface FinishedPasses {
  readonly scan: LayerScan;
  readonly blocks: LayerBlocks;
  readonly metadataBlock: (block: number) => Uint8Array;
}

/** Writes one layer in one form. */
export interface LayerWriter {
  /** The scan has to bring payload; otherwise the form holds none. */
  readonly needsPayload: boolean;
  /** Takes payload as it comes: whole blocks, compressed. */
  appendPayload(batch: CompressedBatch, payloadBytes: number): Promise<void>;
  /** The scan has to find out where the layer's content can be read in the middle. */
  readonly needsIndex: boolean;
  finish(passes: FinishedPasses): Promise<ConvertedLayer>;
}
