import { mkdtemp, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ByteSource } from "../../bytes/source.ts";
import { BlobSpool, SpoolMemory } from "../../convert/blob-spool.ts";
import { scanLayer, type LayerScan, type ScanOptions } from "../../convert/layer-scan.ts";
import { PAYLOAD_PIECE_BYTES } from "../../convert/payload-packer.ts";
import { corrupt } from "../../errors.ts";
import { ZFILE_RECORD_BYTES } from "../../formats/zfile/layout.ts";
import { isZFile, openZFile } from "../../formats/zfile/zfile-reader.ts";
import type { Environment } from "../environment.ts";
import { openSource, openStream } from "./source-file.ts";

/** Payload up to this size waits in memory for its place. */
const SPOOL_MEMORY_BYTES = 64 << 20;
const READ_BYTES = 1 << 20;

/** A layer's archive, read to its end. Closing it frees the payload. */
export interface ScannedArchive extends AsyncDisposable {
  readonly scan: LayerScan;
  /** Empty if it was not wanted. */
  readonly payload: BlobSpool;
}

/** Opens the tar of a layer, which may be in a ZFile. */
export async function openTarFile(path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
  if (!(await stat(path)).isFile()) return await openStream(path, signal); // a pipe can be opened only once
  const file = await openSource(path);
  try {
    if (isZFile(await file.read(0, Math.min(ZFILE_RECORD_BYTES, file.size)))) return pieces(await openZFile(file));
    await file.close();
    return await openStream(path, signal);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function* pieces(source: ByteSource): AsyncGenerator<Uint8Array, void> {
  try {
    for (let at = 0; at < source.size; at += READ_BYTES) yield await source.read(at, Math.min(READ_BYTES, source.size - at));
  } finally {
    await source.close();
  }
}

/** Reads a tar, compressed or not, front to back: what is in it and, if wanted, the files' payload, which waits in a temporary file. */
export async function scanArchive(
  stored: AsyncIterable<Uint8Array>,
  name: string,
  options: ScanOptions,
  environment: Environment,
): Promise<ScannedArchive> {
  const directory = await mkdtemp(join(environment.temporaryDirectory, "lazylayer-apply-"));
  const payload = new BlobSpool({ path: join(directory, "spool", "payload"), keep: false, memory: new SpoolMemory(SPOOL_MEMORY_BYTES) });
  const free = async (): Promise<void> => {
    await payload.close();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const write = async (bytes: Uint8Array): Promise<void> => await payload.write(bytes);
    const scan = await scanLayer(stored, name, write, () => new ArrayBuffer(PAYLOAD_PIECE_BYTES), options);
    return { scan, payload, [Symbol.asyncDispose]: free };
  } catch (error) {
    await free();
    throw error;
  }
}

/** Holds the digest of an uncompressed tar against the one that a user expects; "" expects nothing. Throws `CORRUPT` where they differ. */
export function checkDigest(found: string, expected: string): void {
  if (expected !== "" && expected !== found) throw corrupt(`sha256 checksum mismatch, expect: ${expected}, got: ${found}`);
}
