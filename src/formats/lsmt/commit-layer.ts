import type { ByteSink } from "../../bytes/sink.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { compactedSegments } from "./compaction.ts";
import { identityOf, type LayerIdentity } from "./layer-identity.ts";
import { encodedIndex } from "./layer-index.ts";
import {
  encodeRecord,
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  INDEX_ALIGN_ENTRIES,
  LSMT_RECORD_BYTES,
  MAPPING_BYTES,
  SECTOR_BYTES,
  TARGET_TAG,
} from "./layout.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import type { LsmtSummary } from "./lsmt-writer.ts";
import type { MappingList } from "./mapping-list.ts";
import { stackLayers } from "./stack.ts";
import type { Segments } from "./segment-table.ts";

/** Bytes that are read at a time. */
const READ_BYTES = 1 << 20;
/** Reads that are underway at a time. */
const MAX_READS = 4;

export interface CommitOptions {
  /** Identity of the result; none by default. */
  readonly uuid?: string | undefined;
  /** Identity of the layer below; by default what the source says. */
  readonly parentUuid?: string | undefined;
  /** Free text of at most 256 bytes. */
  readonly userTag?: string | undefined;
}

/** A layer as it can be committed: `LsmtLayer` is one, of a layer that is finished, sealed, or being written. */
export type CommittedSource = Pick<LsmtLayer, "virtualSize" | "parentUuid" | "files"> & { readonly segments: Segments };

/**
 * Writes a layer as a finished one, front to back, holding only data that is mapped, byte for byte as existing tools do; see
 * docs/formats/lsmt.md. The sink stays open. Throws `UNSUPPORTED` before anything is written when the index would be too long.
 */
export async function commitLayer(layer: CommittedSource, sink: Pick<ByteSink, "write">, options: CommitOptions): Promise<LsmtSummary> {
  const identity = identityOf(
    { ...options, virtualSize: layer.virtualSize, parentUuid: options.parentUuid ?? layer.parentUuid },
    "lsmt commit",
  );
  const mappings = compactedSegments(layer.segments, () => 0);
  return await writeCompacted({ identity, mappings, source: layer, alignEntries: INDEX_ALIGN_ENTRIES }, sink);
}

/**
 * Like `commitLayer`, for a warp layer: what it maps of its target stays mapped. Without `parentUuid` the result has none, and it never
 * has a user tag.
 */
export async function commitWarpLayer(
  layer: CommittedSource,
  sink: Pick<ByteSink, "write">,
  options: Omit<CommitOptions, "userTag">,
): Promise<LsmtSummary> {
  const identity = identityOf({ ...options, virtualSize: layer.virtualSize }, "lsmt commit");
  const mappings = compactedSegments(layer.segments, (tag) => tag, TARGET_TAG);
  return await writeCompacted({ identity, mappings, source: layer, alignEntries: 1, keptTag: TARGET_TAG }, sink);
}

export interface MergeOptions extends CommitOptions {
  /** The last layer is one that is being written; existing tools count it behind the others, as if it were the lowest. */
  readonly hasWritable?: boolean;
}

/**
 * Merges layers, the lowest first, to one that holds what their stack shows; warp layers bring the data of their targets along. Of the
 * data only a few pieces are in memory at a time. Otherwise like `commitLayer`; the parent is by default the lowest layer's, or what
 * the writable layer says.
 */
export async function mergeLayers(
  layers: readonly LsmtLayer[],
  sink: Pick<ByteSink, "write">,
  { hasWritable = false, ...options }: MergeOptions,
): Promise<LsmtSummary> {
  const stack = stackLayers(layers);
  const finished = layers.length - (hasWritable ? 1 : 0);
  // The tag on disk is a place in existing tools' list of files: finished layers from the uppermost down, then the writable one's files.
  const tags = layers.flatMap(({ files }, layer) => files.map((_, file) => (layer < finished ? finished - 1 - layer : finished + file)));
  const parentUuid = options.parentUuid ?? layers[hasWritable ? finished : 0].parentUuid;
  const identity = identityOf({ ...options, virtualSize: stack.size, parentUuid }, "lsmt merge");
  const mappings = compactedSegments(stack.segments, (tag) => tags[tag]);
  return await writeCompacted({ identity, mappings, source: stack, alignEntries: INDEX_ALIGN_ENTRIES }, sink);
}

interface Compacted {
  readonly identity: LayerIdentity;
  readonly mappings: MappingList;
  readonly source: { readonly segments: Segments; readonly files: readonly ByteSource[] };
  readonly alignEntries: number;
  /** Segments whose data is not copied. */
  readonly keptTag?: number;
}

async function writeCompacted(layer: Compacted, sink: Pick<ByteSink, "write">): Promise<LsmtSummary> {
  const { identity, mappings, source, alignEntries, keptTag } = layer;
  const index = encodedIndex(mappings, alignEntries);
  await sink.write(encodeRecord({ ...identity, flags: FLAG_HEADER | FLAG_DATA | FLAG_SEALED }));
  const dataBytes = await copyData(source, sink, keptTag);
  if (index.length > 0) await sink.write(index);
  const indexOffset = LSMT_RECORD_BYTES + dataBytes;
  const indexEntries = index.length / MAPPING_BYTES;
  await sink.write(encodeRecord({ ...identity, flags: FLAG_DATA | FLAG_SEALED, indexOffset, indexEntries }));
  return { bytes: indexOffset + index.length + LSMT_RECORD_BYTES, segments: mappings.count };
}

/** Copies the data of all segments in their order, reading some ahead; answers how many bytes that were. */
async function copyData({ segments, files }: Compacted["source"], sink: Pick<ByteSink, "write">, keptTag?: number): Promise<number> {
  const underway: Promise<Uint8Array>[] = [];
  let copied = 0;
  const writeOldest = async (): Promise<void> => {
    const bytes = await underway[0];
    await sink.write(bytes);
    void underway.shift();
    copied += bytes.length;
  };
  try {
    for (const { tag, offset, bytes } of dataPieces(segments, keptTag)) {
      const reading = files[tag].read(offset, bytes);
      reading.catch(() => {}); // heard of when its turn comes
      underway.push(reading);
      if (underway.length === MAX_READS) await writeOldest();
    }
    while (underway.length > 0) await writeOldest();
  } finally {
    await Promise.allSettled(underway);
  }
  return copied;
}

interface DataPiece {
  readonly tag: number;
  readonly offset: number;
  readonly bytes: number;
}

/** What to copy, in pieces of a bounded size; segments that follow each other in a file are read together. */
function* dataPieces({ count, sectors, mappedSector, zeroed, tag }: Segments, keptTag?: number): Generator<DataPiece> {
  let piece: { tag: number; offset: number; bytes: number } | undefined;
  for (let i = 0; i < count; i++) {
    if (zeroed[i] === 1 || tag[i] === keptTag) continue;
    let offset = mappedSector[i] * SECTOR_BYTES;
    for (let left = sectors[i] * SECTOR_BYTES; left > 0;) {
      const goesOn = piece !== undefined && piece.tag === tag[i] && piece.offset + piece.bytes === offset;
      if (piece === undefined || !goesOn || piece.bytes === READ_BYTES) {
        if (piece) yield piece;
        piece = { tag: tag[i], offset, bytes: 0 };
      }
      const taken = Math.min(left, READ_BYTES - piece.bytes);
      piece.bytes += taken;
      offset += taken;
      left -= taken;
    }
  }
  if (piece) yield piece;
}
