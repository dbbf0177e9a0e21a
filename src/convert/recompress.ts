import type { ByteSource } from "../bytes/source.ts";
import { decompress } from "../compression/decompress.ts";
import { gzipped } from "../compression/gzip-stream.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { BlobSpool } from "./blob-spool.ts";
import { storedLayer } from "./stored-layer.ts";
import type { ScanThreads } from "./scan-threads.ts";
import type { RecompressedLayer } from "./turbo-layer.ts";

export interface RecompressOptions {
  readonly source: ImageStore;
  readonly threads: ScanThreads;
  readonly spool: BlobSpool;
  /** What to call the layer in messages. */
  readonly name: string;
  readonly signal: AbortSignal;
}

const READ_BYTES = 1 << 20;

/** Reads a layer once more and compresses it with gzip, which can be read in the middle whatever its size. */
export async function recompressLayer(layer: Descriptor, options: RecompressOptions): Promise<RecompressedLayer> {
  const { source, threads, spool, name, signal } = options;
  const { stream } = await decompress(source.blobStream(layer, { signal }), name);
  for await (const piece of gzipped(stream, name)) await spool.write(piece);
  const stored = storedLayer(layer, "gzip");
  const descriptor = { ...stored, digest: await spool.digest(), size: spool.size };
  const { index } = await threads.scan(pieces(spool), `${name}, compressed anew`, undefined, { indexed: true });
  if (index === undefined) throw new Error(`${name}: was scanned without an index`);
  return { descriptor, content: spool, index };
}

async function* pieces(source: ByteSource): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < source.size; at += READ_BYTES) yield await source.read(at, Math.min(READ_BYTES, source.size - at));
}
