import type { ByteSink } from "../../bytes/sink.ts";
import { compressInline, type BlockAlgorithm, type CompressBlocks } from "../../compression/block-codec.ts";
import { ScanThreads } from "../../convert/scan-threads.ts";
import { LazyError } from "../../errors.ts";
import { ZFileWriter } from "../../formats/zfile/zfile-writer.ts";
import { DigestHash, type Digest } from "../../oci/digest.ts";
import { makeFile, type OutputFileOptions } from "./output-file.ts";

/** How a layer is compressed. */
export interface LayerCompression {
  readonly algorithm: BlockAlgorithm;
  /** Bytes. */
  readonly blockSize: number;
  readonly threads: number;
  /** The header says in the end what the trailer says, so that one read opens the file. */
  readonly overwriteHeader: boolean;
}

/** A layer's bytes go there, front to back. */
export type LayerSink = Pick<ByteSink, "write">;

/** The algorithm that `--algorithm` names. */
export function blockAlgorithm(name: string): BlockAlgorithm {
  if (name === "lz4" || name === "zstd") return name;
  throw new LazyError("USAGE", `invalid '--algorithm' parameters. ${name} is neither lz4 nor zstd`);
}

/** Makes the file of a layer, compressed or not; gives the digest of what was written front to back. */
export async function writeLayerFile(
  path: string,
  options: OutputFileOptions,
  compression: LayerCompression | undefined,
  signal: AbortSignal,
  write: (sink: LayerSink) => Promise<void>,
): Promise<Digest> {
  const hash = new DigestHash();
  await makeFile(path, options, async (output) => {
    const hashed: LayerSink = {
      write: async (bytes) => {
        signal.throwIfAborted();
        hash.update(bytes);
        await output.write(bytes);
      },
    };
    if (compression === undefined) {
      await write(hashed);
      return;
    }
    const { algorithm, blockSize, threads, overwriteHeader } = compression;
    await compressing(threads, async (compress) => {
      const zfile = new ZFileWriter(hashed, { algorithm, blockSize, compress, overwriteHeader });
      await write(zfile);
      const { header } = await zfile.close();
      if (overwriteHeader) await output.patch(0, header);
    });
  });
  return hash.digest();
}

async function compressing(threads: number, run: (compress: CompressBlocks) => Promise<void>): Promise<void> {
  if (threads <= 1) return await run(compressInline);
  const pool = new ScanThreads({ threads });
  try {
    await run(pool.compress);
  } finally {
    await pool.close();
  }
}
