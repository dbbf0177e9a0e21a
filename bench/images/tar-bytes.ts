import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";

/** Size of a layer's file as tar, found by reading all of it: gzip, zstd or tar. */
export async function tarBytesOf(path: string): Promise<number> {
  let bytes = 0;
  const count = async (chunks: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const chunk of chunks) bytes += chunk.length;
  };
  const blob = createReadStream(path, { highWaterMark: 1 << 20 });
  const magic = await firstBytes(path);
  if (magic === 0x1f8b) await pipeline(blob, createGunzip({ chunkSize: 1 << 20 }), count);
  else if (magic === 0x28b5) await pipeline(blob, createZstdDecompress({ chunkSize: 1 << 20 }), count);
  else await pipeline(blob, count);
  return bytes;
}

async function firstBytes(path: string): Promise<number> {
  await using file = await open(path);
  const { buffer } = await file.read(Buffer.alloc(2), 0, 2, 0);
  return buffer.readUInt16BE();
}
