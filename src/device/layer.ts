import { SubSource, type ByteSource } from "../bytes/source.ts";
import { corrupt, unsupported } from "../errors.ts";
import { isLsmt, openLayer, type LsmtLayer } from "../formats/lsmt/lsmt-reader.ts";
import { FLAG_HEADER_OVERWRITTEN, ZFILE_RECORD_BYTES, zfileRecord } from "../formats/zfile/layout.ts";
import { isZFile, openZFile, type ZFileBlocks } from "../formats/zfile/zfile-reader.ts";
import { openTarPayload } from "../tar/payload.ts";
import { PinnedSource } from "./pinned-source.ts";

/** First range read of a blob: the tar wrapper, the ZFile header and the blocks that hold the LSMT header. */
const HEAD_BYTES = 64 * 1024;
/** A blob up to this size comes in one read. */
const WHOLE_BYTES = 256 * 1024;
/**
 * How far before the ZFile index the read of a blob's end begins. The LSMT index and, in layers that end with it, the file system's
 * metadata lie there; their size is not known in advance, but goes with the blob's.
 */
const MIN_SLACK_BYTES = 512 * 1024;
const MAX_SLACK_BYTES = 4 * 2 ** 20;
const SLACK_FRACTION = 1 / 256;
/** What the ZFile index takes, before the header has said so: four bytes a block of 4 KiB, where content shrinks to a third. */
const INDEX_FRACTION = 3 / 1024;
const MAX_GUESSED_INDEX_BYTES = 2 * 2 ** 20;

/** A layer with what is needed to find its data in the blob without reading through `lsmt`. */
export interface OverlaybdLayer {
  readonly lsmt: LsmtLayer;
  /** What `lsmt` reads the blob through. */
  readonly reader: ByteSource;
  /** Where the payload of the tar wrapper begins in the blob; 0 without a wrapper. */
  readonly payloadOffset: number;
  /** The ZFile in the payload; undefined when the LSMT file is not compressed. */
  readonly blocks: ZFileBlocks | undefined;
}

export interface OpenLayerOptions {
  /** The blob is declared to be overlaybd, so anything else is damage. */
  readonly declared: boolean;
  /** Keep what opening has read in memory, for blobs that nothing else caches. */
  readonly keepPinned: boolean;
  /** Opens the LSMT file, for layers that have more files than that one; closing the layer closes it. */
  readonly openLsmt?: (file: ByteSource) => Promise<LsmtLayer>;
}

/**
 * Opens a layer blob: LSMT, in a ZFile or not, in a tar wrapper or not. Two reads of the source at once, of its front and its
 * end, suffice for layers of the usual order. Closing `lsmt` closes the source; when opening fails, the source stays open.
 * Throws `UNSUPPORTED` for what is not an overlaybd layer, `CORRUPT` for a damaged one.
 */
export async function openOverlaybdLayer(source: ByteSource, options: OpenLayerOptions): Promise<OverlaybdLayer> {
  const pinned = new PinnedSource(source);
  const isWhole = source.size <= WHOLE_BYTES;
  const guess = guessedTail(source.size);
  if (isWhole) await pinned.pin(0, source.size);
  else await Promise.all([pinned.pin(0, HEAD_BYTES), pinned.pin(guess, source.size - guess)]);
  const payload = await openTarPayload(pinned);
  const payloadOffset = payload instanceof SubSource ? payload.offset : 0;
  const head = await payload.read(0, Math.min(ZFILE_RECORD_BYTES, payload.size));
  const compressed = isZFile(head);
  if (!compressed && !isLsmt(head)) throw notOverlaybd(source.name, head, options.declared);
  const indexStart = compressed ? statedIndex(source.size, payloadOffset, head) : undefined;
  if (!isWhole && indexStart !== undefined && indexStart < guess) {
    const tail = tailBefore(indexStart, source.size);
    await pinned.pin(tail, source.size - tail);
  }
  const zfile = compressed ? await openZFile(payload) : undefined;
  const lsmt = await (options.openLsmt ?? openLayer)(zfile ?? payload);
  if (!options.keepPinned) pinned.unpin();
  return { lsmt, reader: pinned, payloadOffset, blocks: zfile?.blocks };
}

/** Where the end of a blob begins that is worth a read. A wrong guess costs reads, not correctness. */
function guessedTail(blobBytes: number): number {
  const index = Math.min(blobBytes * INDEX_FRACTION, MAX_GUESSED_INDEX_BYTES);
  return tailBefore(blobBytes - index, blobBytes);
}

/** Where the read of a blob's end begins if the ZFile index begins at `indexStart`. */
function tailBefore(indexStart: number, blobBytes: number): number {
  const slack = Math.min(Math.max(blobBytes * SLACK_FRACTION, MIN_SLACK_BYTES), MAX_SLACK_BYTES);
  return Math.max(HEAD_BYTES, Math.floor((indexStart - slack) / HEAD_BYTES) * HEAD_BYTES);
}

/** Where the header says that the ZFile index begins. It is only believed as far as it is useful. */
function statedIndex(blobBytes: number, payloadOffset: number, head: Uint8Array): number | undefined {
  if (head.length !== ZFILE_RECORD_BYTES) return undefined;
  const { flags, indexOffset } = zfileRecord.decode(head);
  const start = payloadOffset + indexOffset;
  const isUseful = start < blobBytes && blobBytes - start <= MAX_SLACK_BYTES;
  return flags & FLAG_HEADER_OVERWRITTEN && isUseful ? start : undefined;
}

function notOverlaybd(name: string, head: Uint8Array, declared: boolean): Error {
  const found = `begins with ${Buffer.from(head.subarray(0, 8)).toString("hex") || "nothing"}, expected a ZFile or an LSMT layer`;
  if (declared) return corrupt(`${name}: ${found}`);
  return unsupported(`${name}: ${found}: this is not an overlaybd image; convert it first with lazylayer convert`);
}
