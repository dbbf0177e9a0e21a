import type { Entry } from "./entry.ts";
import type { Change } from "./layer-changes.ts";

/** A run of a file's blocks that has data; the others are holes. Blocks have 4096 bytes. */
export interface FileRun {
  /** First block within the file. */
  readonly fileBlock: number;
  readonly blocks: number;
}

/** A layer's entry whose data lies in the layer's payload: its runs, one after the other, from `payloadBlock` on. */
export interface PayloadEntry extends Entry {
  readonly payloadBlock: number;
  readonly runs: readonly FileRun[];
}

/** Where a part of the payload belongs on the device. */
export interface PayloadPlace {
  readonly block: number;
  readonly payloadBlock: number;
  readonly blocks: number;
}

/** What a layer adds to the device. */
export interface LayerBlocks {
  /** Payload that the filesystem refers to, ascending by payload block. */
  readonly payload: readonly PayloadPlace[];
  /** Numbers of the metadata blocks that changed; those that a mount reads first come last. */
  readonly metadata: readonly number[];
}

/**
 * A filesystem that grows layer by layer: apply a layer's changes between `beginLayer` and `finishLayer`, which says which blocks
 * the layer consists of. It does not depend on time or on how it came to be: a filesystem carried in memory and the same one
 * opened from its device give equal blocks.
 */
export interface FilesystemWriter {
  /** Starts a layer whose payload has `payloadBlocks` blocks. */
  beginLayer(payloadBlocks: number): void;
  /** Applies one change. Throws `CORRUPT` or `UNSUPPORTED`, naming the entry, for what no filesystem could hold. */
  apply(change: Change<PayloadEntry>): void;
  /** Ends the layer: everything is written into metadata blocks. */
  finishLayer(): LayerBlocks;
  /** A metadata block that the last `finishLayer` named. */
  metadataBlock(block: number): Uint8Array;
}
