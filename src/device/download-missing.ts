import type { ByteSource } from "../bytes/source.ts";
import type { CachedSource } from "../cache/cached-source.ts";
import type { FileExtent } from "../formats/lsmt/unsealed-layer.ts";
import type { ByteRate } from "./byte-rate.ts";
import { UNIT_BYTES, type DownloadFile } from "./download-file.ts";

/** Pieces at a time. All but one wait while somebody waits for a read of a registry. */
const READERS = 2;

export interface FetchOptions {
  /** What is kept of the blob already, and need not be fetched. */
  readonly kept: CachedSource | undefined;
  /** What a request asks for; whole units are taken. */
  readonly pieceBytes: number;
  readonly rate: ByteRate;
  /** Resolves when no read of the device waits for a registry. */
  readonly idle: () => Promise<void>;
  readonly signal: AbortSignal;
  /** Told how many bytes came from the blob. */
  readonly onFetched: (bytes: number) => void;
}

/**
 * Fetches what a file misses of a blob, which is closed afterwards. When it fails, or the signal is aborted, what has come stays in the
 * file, and nothing is underway any more.
 */
export async function fetchMissing(file: DownloadFile, blob: ByteSource, options: FetchOptions): Promise<void> {
  const { signal, idle } = options;
  const stopped = Promise.withResolvers<void>();
  const stop = (): void => {
    stopped.resolve();
    void blob.close();
  };
  signal.addEventListener("abort", stop);
  // Whole units, so that a request that was cut off leaves no unit half there.
  const pieces = piecesOf(file.missing, Math.ceil(options.pieceBytes / UNIT_BYTES) * UNIT_BYTES);
  let failed = false;
  const readOn = async (isFirst: boolean): Promise<void> => {
    while (!failed) {
      if (!isFirst) await Promise.race([idle(), stopped.promise]);
      signal.throwIfAborted();
      const { value: piece } = pieces.next();
      if (piece === undefined) return;
      await fetchPiece(piece, file, blob, options);
    }
  };
  const readers = Array.from({ length: READERS }, async (_, reader) => {
    await readOn(reader === 0).catch((error: unknown) => {
      failed = true;
      throw error;
    });
  });
  const failure = (await Promise.allSettled(readers)).find((result) => result.status === "rejected");
  signal.removeEventListener("abort", stop);
  await blob.close();
  if (failure !== undefined) throw failure.reason;
}

async function fetchPiece(
  { offset, length }: FileExtent,
  file: DownloadFile,
  blob: ByteSource,
  { kept, rate, signal, onFetched }: FetchOptions,
): Promise<void> {
  const stop = offset + length;
  for (let at = offset; at < stop;) {
    const { end, isStored } = (await kept?.stretch(at, stop)) ?? { end: stop, isStored: false };
    if (kept !== undefined && isStored) await file.write(at, await kept.read(at, end - at));
    else {
      await rate.take(end - at, signal);
      const bytes = await blob.read(at, end - at);
      onFetched(bytes.length);
      await file.write(at, bytes);
    }
    at = end;
  }
}

function* piecesOf(missing: readonly FileExtent[], bytes: number): Generator<FileExtent, undefined> {
  for (const { offset, length } of missing) {
    for (let at = 0; at < length; at += bytes) yield { offset: offset + at, length: Math.min(bytes, length - at) };
  }
}
