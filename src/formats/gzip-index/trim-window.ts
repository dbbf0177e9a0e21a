import { GzipDecoder, type ResumePoint } from "../../compression/gzip-decoder.ts";
import { LazyError } from "../../errors.ts";
import { WINDOW_BYTES } from "./layout.ts";

/** Two windows that together say of every byte where in the window it is; bytes of `HIGH` have their highest bit set. */
const LOW = Uint8Array.from({ length: WINDOW_BYTES }, (_, at) => at & 0xff);
const HIGH = Uint8Array.from({ length: WINDOW_BYTES }, (_, at) => 0x80 | (at >> 8));

/** Stored bytes that are decoded at a time, to decode little more than is needed. */
const STEP_BYTES = 4 * 1024;
/** Stored bytes that have more content than the window reaches, in all but the oddest data. */
export const FOLLOWING_BYTES = 48 * 1024;

/**
 * The window of a point in full length, zeros before what there is of it and wherever the data after the point does not refer
 * to it. That data is decoded with windows that are known not to be it: bytes that come out with their highest bit set were
 * literals, or copied from the place that the two bytes spell. Literals may keep a byte that nobody needs, never the reverse.
 * @param following the stored data from the byte with the point's bits on, FOLLOWING_BYTES of it or all that there is
 */
export function trimWindow(point: ResumePoint, following: Uint8Array): Uint8Array {
  const window = new Uint8Array(WINDOW_BYTES);
  window.set(point.window, WINDOW_BYTES - point.window.length);
  if (point.window.length === 0) return window;
  try {
    const [low, high] = [LOW, HIGH].map((plane) => contentWith(plane, point, following));
    const isAllThatRefers = high.length === WINDOW_BYTES || following.length < FOLLOWING_BYTES;
    return isAllThatRefers ? keepSpelled(window, low, high) : window;
  } catch (error) {
    if (error instanceof LazyError) return window; // broken data: whoever decodes it for its content will say so
    throw error;
  }
}

function keepSpelled(window: Uint8Array, low: Uint8Array, high: Uint8Array): Uint8Array {
  const kept = new Uint8Array(WINDOW_BYTES);
  for (let at = 0; at < high.length; at++) {
    if (high[at] < 0x80) continue;
    const place = ((high[at] & 0x7f) << 8) | low[at];
    kept[place] = window[place];
  }
  return kept;
}

/** What the data is with another window, as far as it can refer to it. */
function contentWith(window: Uint8Array, { storedOffset, bits }: ResumePoint, following: Uint8Array): Uint8Array {
  using decoder = GzipDecoder.resume("window", { storedOffset, bits, window }, following.subarray(0, STEP_BYTES), Infinity);
  const pieces: Uint8Array[] = [];
  let length = 0;
  for (let at = STEP_BYTES; ; at += STEP_BYTES) {
    for (let piece; (piece = decoder.next()) !== undefined; length += piece.length) pieces.push(new Uint8Array(piece));
    if (length >= WINDOW_BYTES || at >= following.length) return Buffer.concat(pieces).subarray(0, WINDOW_BYTES);
    decoder.push(following.subarray(at, at + STEP_BYTES));
  }
}
