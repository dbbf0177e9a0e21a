import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { readThrough, type ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import { DigestHash, hexOf, type Digest } from "../oci/digest.ts";
import type { StoredBlob } from "../oci/image-store.ts";
import { placeError } from "./layout-index.ts";

const READ_BYTES = 1 << 20;

/** The one way from a digest to a path. A `Digest` holds nothing but hex digits, so nothing can climb out. */
export function blobPath(directory: string, digest: Digest): string {
  return join(directory, "blobs", "sha256", hexOf(digest));
}

/** Size of the blob's file; undefined if there is none. */
export async function blobSize(directory: string, digest: Digest): Promise<number | undefined> {
  const path = blobPath(directory, digest);
  try {
    const found = await stat(path);
    if (!found.isFile()) throw corrupt(`${path}: is not a regular file`);
    return found.size;
  } catch (error) {
    const failure = placeError(path, error);
    if (failure.code === "NOT_FOUND") return undefined;
    throw failure;
  }
}

/** The blob front to back; throws `CORRUPT` at its end, or as soon as it is too long. */
export async function* readBlob(directory: string, digest: Digest, size: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const path = blobPath(directory, digest);
  const hash = new DigestHash();
  let length = 0;
  try {
    const stream: AsyncIterable<Uint8Array> = createReadStream(path, { highWaterMark: READ_BYTES, ...(signal && { signal }) });
    for await (const chunk of stream) {
      length += chunk.length;
      if (length > size) throw corrupt(`${path}: is longer than the ${size} bytes of its descriptor`);
      hash.update(chunk);
      yield chunk;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw placeError(path, error);
  }
  checkBlob(path, { digest: hash.digest(), length }, { digest, length: size });
}

/**
 * Writes under a temporary name, hashes what it writes, and renames: a blob that has its name is whole. Throws `CORRUPT` if it is not
 * the one that is expected, if one is.
 */
export async function writeBlob(
  directory: string,
  content: ByteSource,
  { expected, signal }: { readonly expected?: Digest; readonly signal?: AbortSignal | undefined },
): Promise<StoredBlob> {
  const blobs = join(directory, "blobs", "sha256");
  const temporary = join(blobs, `.tmp-${randomUUID()}`);
  try {
    await mkdir(blobs, { recursive: true });
    const digest = await copyContent(temporary, content, signal);
    const length = content.size;
    if (expected !== undefined) checkBlob(blobPath(directory, expected), { digest, length }, { digest: expected, length });
    const result = (await blobSize(directory, digest)) === length ? "exists" : "uploaded";
    await rename(temporary, blobPath(directory, digest));
    return { digest, result };
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    signal?.throwIfAborted();
    throw placeError(expected === undefined ? blobs : blobPath(directory, expected), error);
  }
}

async function copyContent(path: string, content: ByteSource, signal?: AbortSignal): Promise<Digest> {
  const hash = new DigestHash();
  await using file = await open(path, "wx", 0o644);
  const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, content.size));
  for (let at = 0; at < content.size; at += READ_BYTES) {
    signal?.throwIfAborted();
    const bytes = await readThrough(content, at, buffer.subarray(0, content.size - at));
    hash.update(bytes);
    await file.writeFile(bytes);
  }
  await file.sync();
  return hash.digest();
}

interface BlobFacts {
  readonly digest: Digest;
  readonly length: number;
}

function checkBlob(path: string, found: BlobFacts, expected: BlobFacts): void {
  if (found.length !== expected.length) throw corrupt(`${path}: ${found.length} bytes, expected ${expected.length}`);
  if (found.digest !== expected.digest) throw corrupt(`${path}: content has digest ${found.digest}, expected ${expected.digest}`);
}
