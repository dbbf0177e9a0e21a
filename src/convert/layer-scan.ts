import { decompress } from "../compression/decompress.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import type { TarEntry } from "../tar/tar-entry.ts";
import { TarReader } from "../tar/tar-reader.ts";
import { EntryLog, type ScannedEntry } from "./entry-log.ts";
import { LayerIndexer, type LayerIndex } from "./layer-index.ts";
import { PayloadPacker } from "./payload-packer.ts";

/** What the data pass over a layer finds. */
export interface LayerScan {
  /** In archive order; their data lies in the payload. */
  readonly entries: EntryLog;
  readonly payloadBlocks: number;
  /** Digest of the uncompressed archive. */
  readonly diffId: Digest;
  /** If it was asked for. */
  readonly index: LayerIndex | undefined;
}

export interface ScanOptions {
  /** Payload is wanted; otherwise it is only measured. */
  readonly payload: boolean;
  /** Find out where the content can be read in the middle, and what it is there. */
  readonly indexed: boolean;
}

/** Bytes that the archive's reader gets at a time; fewer in sparse files, which unfold to up to a block a byte. */
const SLICE_BYTES = 64 * 1024;
const SPARSE_SLICE_BYTES = 4 * 1024;

/**
 * The data pass: one front-to-back read of a layer as it is stored. It needs nothing from other layers. Files come out as
 * payload blocks through `write`, in archive order, if they are wanted; everything else is collected.
 * @param name what to call the layer in messages
 * @param allocate gives buffers for payload, of PAYLOAD_PIECE_BYTES or more; `write` gets them back
 */
export async function scanLayer(
  stored: AsyncIterable<Uint8Array>,
  name: string,
  write: (payload: Buffer<ArrayBuffer>) => Promise<void>,
  allocate: () => ArrayBuffer,
  options: ScanOptions,
): Promise<LayerScan> {
  const packer = new PayloadPacker(options.payload ? allocate : undefined);
  const indexer = options.indexed ? new LayerIndexer() : undefined;
  const entries = new EntryLog();
  const reader = new TarReader(
    {
      entry: (entry) => entries.append(withPayload(entry, packer)),
      data: (bytes) => packer.data(bytes),
      entryEnd: () => packer.endFile(),
    },
    name,
  );
  const hash = new DigestHash();
  const { stream } = await decompress(stored, name, indexer?.observer);
  for await (const chunk of stream) {
    hash.update(chunk);
    indexer?.content(chunk);
    for (let at = 0; at < chunk.length;) {
      const end = at + (packer.sparse ? SPARSE_SLICE_BYTES : SLICE_BYTES);
      reader.write(chunk.subarray(at, end));
      at = end;
      for (const payload of packer.take(false)) await write(payload);
    }
  }
  reader.close();
  for (const payload of packer.take(true)) await write(payload);
  return { entries, payloadBlocks: packer.blocks, diffId: hash.digest(), index: await indexer?.finish() };
}

function withPayload(entry: TarEntry, packer: PayloadPacker): ScannedEntry {
  const { path, type, mode, uid, gid, mtime, atime, ctime, size, link, major, minor, xattrs, extents, dataOffset } = entry;
  const { payloadBlock, runs } = packer.beginFile(entry);
  return { path, type, mode, uid, gid, mtime, atime, ctime, size, link, major, minor, xattrs, extents, dataOffset, payloadBlock, runs };
}
