import type { BlockAlgorithm, CompressedBatch } from "../compression/block-codec.ts";
import type { ErrorCode } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { LayerIndex } from "./layer-index.ts";
import type { ScanOptions } from "./layer-scan.ts";
import { PAYLOAD_PIECE_BYTES } from "./payload-packer.ts";

/** Each stored layer goes to one thread; `id` names the scan. Buffers are transferred, and come back to be used again. */
export type ScanRequest =
  | { readonly kind: "scan"; readonly id: number; readonly name: string; readonly options: ScanOptions }
  /** The next bytes of the layer as it is stored. */
  | { readonly kind: "stored"; readonly id: number; readonly buffer: ArrayBuffer; readonly bytes: number }
  | { readonly kind: "end"; readonly id: number }
  /** The result is not wanted any more. */
  | { readonly kind: "drop"; readonly id: number }
  /** A batch has been put into the blob. */
  | { readonly kind: "put"; readonly id: number; readonly spare: ArrayBuffer | undefined }
  /** Blocks of anybody; `id` names the batch. */
  | {
      readonly kind: "compress";
      readonly id: number;
      readonly algorithm: BlockAlgorithm;
      readonly blockSize: number;
      readonly buffer: ArrayBuffer;
      readonly bytes: number;
      /** For what comes out. */
      readonly spare: ArrayBuffer | undefined;
    };

export type ScanReply =
  /** A buffer with stored bytes has been used up. */
  | { readonly kind: "taken"; readonly id: number; readonly buffer: ArrayBuffer }
  /** The next payload, compressed ... */
  | { readonly kind: "batch"; readonly id: number; readonly batch: CompressedBatch; readonly payloadBytes: number }
  /** ... or to be compressed by another thread. */
  | { readonly kind: "payload"; readonly id: number; readonly buffer: ArrayBuffer; readonly bytes: number }
  | {
      readonly kind: "scanned";
      readonly id: number;
      /** Of an `EntryLog`. */
      readonly entries: readonly Uint8Array<ArrayBuffer>[];
      readonly payloadBlocks: number;
      readonly diffId: Digest;
      readonly index: LayerIndex | undefined;
    }
  | { readonly kind: "scan failed"; readonly id: number; readonly error: ThreadError }
  | { readonly kind: "compressed"; readonly id: number; readonly buffer: ArrayBuffer; readonly result: CompressedBatch | ThreadError };

/** An error that goes from thread to thread. */
export interface ThreadError {
  readonly code: ErrorCode;
  readonly message: string;
}

/** Buffers that hold a piece of payload or what it is compressed to, each block of which may be larger by 36 bytes. */
export const BATCH_BUFFER_BYTES = PAYLOAD_PIECE_BYTES + (64 << 10);
/** Payload is cut into blocks of this size and compressed so. */
export const PAYLOAD_ALGORITHM: BlockAlgorithm = "lz4";
/** Batches of one scan that wait to be compressed elsewhere or to be put into the blob. */
export const MAX_WAITING_BATCHES = 8;
