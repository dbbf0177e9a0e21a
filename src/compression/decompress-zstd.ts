import { constants, createZstdDecompress } from "node:zlib";
import { decoded, OUTPUT_CHUNK_BYTES } from "./decompress-stream.ts";
import { FrameCutter, MAX_WINDOW_LOG } from "./zstd-frames.ts";

/** A frame without content, for streams that have none. */
const EMPTY_FRAME = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00);

/** The content of all frames of a zstd stream; see `decompress`. */
export function unzstd(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array, void> {
  const params = { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG };
  const decoder = createZstdDecompress({ chunkSize: OUTPUT_CHUNK_BYTES, params });
  return decoded(
    decoder,
    async (write) => {
      const frames = new FrameCutter(name);
      let isEmpty = true;
      for await (const chunk of chunks) {
        for (const piece of frames.cut(chunk)) {
          await write(piece);
          isEmpty = false;
          if (decoder.destroyed) return;
        }
      }
      frames.close();
      if (isEmpty) await write(EMPTY_FRAME);
    },
    name,
  );
}
