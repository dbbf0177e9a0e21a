import { constants, zstdDecompressSync } from "node:zlib";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import { FrameCutter, MAX_WINDOW_LOG } from "./zstd-frames.ts";

const PARAMS = { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG };

/** The content of whole frames. Throws `CORRUPT` when it is not as long as it should be. */
export function decodeZstdSpan(stored: Uint8Array, contentBytes: number, name: string): Uint8Array {
  const cutter = new FrameCutter(name);
  const pieces: Buffer[] = [];
  let left = contentBytes;
  for (const frame of cutter.cut(stored)) {
    const content = decodeFrame(frame, left, name);
    pieces.push(content);
    left -= content.length;
  }
  cutter.close();
  if (left !== 0) throw corrupt(`${name}: ${contentBytes - left} bytes of content, expected ${contentBytes}`);
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
}

function decodeFrame(frame: Uint8Array, maxBytes: number, name: string): Buffer {
  try {
    // A limit of 0 is none.
    const content = zstdDecompressSync(frame, { maxOutputLength: Math.max(maxBytes, 1), params: PARAMS });
    if (content.length > maxBytes) throw corrupt(`${name}: more than the expected bytes of content`);
    return content;
  } catch (error) {
    if (error instanceof LazyError) throw error;
    throw corrupt(`${name}: the compressed data is broken (${messageOf(error)})`, { cause: error });
  }
}
