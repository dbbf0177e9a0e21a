import { createGzip } from "node:zlib";
import { decoded } from "./decompress-stream.ts";

/** Where a header says on which system it was made: on an unknown one, so that the bytes are the same everywhere. */
const SYSTEM_BYTE = 9;
const UNKNOWN_SYSTEM = 255;

/** Compresses a stream to one gzip member without name or time. @param name what to call the stream in messages */
export async function* gzipped(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array, void> {
  let isFirst = true;
  const feed = async (write: (chunk: Uint8Array) => Promise<void>): Promise<void> => {
    for await (const chunk of chunks) await write(chunk);
  };
  for await (const piece of decoded(createGzip(), feed, name)) {
    if (isFirst) piece[SYSTEM_BYTE] = UNKNOWN_SYSTEM;
    isFirst = false;
    yield piece;
  }
}
