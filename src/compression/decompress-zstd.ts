import { constants, createZstdDecompress } from "node:zlib";
import { decoded, OUTPUT_CHUNK_BYTES, type Decoder } from "./decompress-stream.ts";
import { FrameCutter, MAX_WINDOW_LOG, type ZstdFrame } from "./zstd-frames.ts";

/** A frame without content, for streams that have none. */
const EMPTY_FRAME = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00);

/** Is told of every frame with the end of its content, before any content behind it comes. */
export type FrameEnded = (frame: ZstdFrame, contentEnd: number) => void;

/** The content of all frames of a zstd stream; see `decompress`. */
export function unzstd(chunks: AsyncIterable<Uint8Array>, name: string, frameEnded?: FrameEnded): AsyncGenerator<Uint8Array, void> {
  const params = { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG };
  const decoder = createZstdDecompress({ chunkSize: OUTPUT_CHUNK_BYTES, params });
  const content = countContent(decoder);
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
          if (frames.endedFrame !== undefined) frameEnded?.(frames.endedFrame, content.bytes);
        }
      }
      frames.close();
      if (isEmpty) await write(EMPTY_FRAME);
    },
    name,
  );
}

/** Counts what a decoder gives where it gives it: of what has been read, nobody can tell which frame it was the end of. */
function countContent(decoder: Decoder): { readonly bytes: number } {
  const content = { bytes: 0 };
  const push = decoder.push.bind(decoder);
  decoder.push = (chunk: Uint8Array | null) => {
    content.bytes += chunk?.length ?? 0;
    return push(chunk);
  };
  return content;
}
