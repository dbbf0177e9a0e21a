import { corrupt } from "../errors.ts";
import { GzipDecoder, type ResumePoint } from "./gzip-decoder.ts";

export interface GzipSpan {
  readonly point: ResumePoint;
  readonly contentBytes: number;
  /** The data ends with this span, so it has to be complete; otherwise the next point begins where it ends. */
  readonly isLast: boolean;
}

/**
 * The content from a point to where the stored bytes end, which is the next point or the end of the data. The stored bytes
 * begin with the byte that has the point's bits. Throws `CORRUPT` when it is not as long as it should be.
 */
export function decodeGzipSpan({ point, contentBytes, isLast }: GzipSpan, stored: Uint8Array, name: string): Uint8Array {
  using decoder = GzipDecoder.resume(name, point, stored, contentBytes);
  const content = Buffer.allocUnsafe(contentBytes);
  let filled = 0;
  for (let piece; (piece = decoder.next()) !== undefined; filled += piece.length) {
    if (filled + piece.length > contentBytes) throw wrongLength(name, point, contentBytes, "more");
    content.set(piece, filled);
  }
  if (filled < contentBytes) throw wrongLength(name, point, contentBytes, String(filled));
  if (isLast) decoder.close();
  return content;
}

function wrongLength(name: string, { storedOffset }: ResumePoint, expected: number, found: string): Error {
  return corrupt(`${name}: expected ${expected} bytes of content from the access point at byte ${storedOffset}, found ${found}`);
}
