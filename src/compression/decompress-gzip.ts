import { createGunzip } from "node:zlib";
import { corrupt } from "../errors.ts";
import { decoded, OUTPUT_CHUNK_BYTES } from "./decompress-stream.ts";

/** The content of all members of a gzip stream; see `decompress`. */
export function gunzipped(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array, void> {
  const gunzip = createGunzip({ chunkSize: OUTPUT_CHUNK_BYTES });
  return decoded(
    gunzip,
    async (write) => {
      let offset = 0;
      let isInPadding = false;
      for await (const chunk of chunks) {
        if (!isInPadding) await write(chunk);
        if (gunzip.destroyed) return;
        // The decoder stops without a word at a zero after a member, and would not look at what comes later.
        const taken: number = isInPadding ? 0 : gunzip.bytesWritten - offset;
        isInPadding ||= taken < chunk.length;
        checkPadding(chunk, taken, offset, name);
        offset += chunk.length;
      }
    },
    name,
  );
}

function checkPadding(chunk: Uint8Array, start: number, offset: number, name: string): void {
  for (let at = start; at < chunk.length; at++) {
    if (chunk[at] !== 0)
      throw corrupt(`${name}: byte ${offset + at} comes after the end of the gzip data and is not zero; something else was appended`);
  }
}
