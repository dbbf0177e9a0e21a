import { GzipDecoder, type ResumePoint } from "../../compression/gzip-decoder.ts";
import { LazyError } from "../../errors.ts";
import { WINDOW_BYTES } from "./layout.ts";

/** Two windows that together say of every byte where in the window it is; bytes of `HIGH` have their highest bit set. */
const LOW = Uint8Array.from({ length: WINDOW_BYTES }, (_, at) => at & 0xff);
const HIGH = Uint8Array.from({ length: WINDOW_BYTES }, (_, at) => 0x80 | (at >> 8));

/** What comes out of a decoder with one and the other. */
const lowBytes = new Uint8Array(WINDOW_BYTES);
const highBytes = new Uint8Array(WINDOW_BYTES);

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
    decodeWith(LOW, point, following, lowBytes);
    const decoded = decodeWith(HIGH, point, following, highBytes);
    const isAllThatRefers = decoded === WINDOW_BYTES || following.length < FOLLOWING_BYTES;
    return isAllThatRefers ? keepSpelled(window, decoded) : window;
  } catch (error) {
    if (error instanceof LazyError) return window; // broken data: whoever decodes it for its content will say so
    throw error;
  }
}

function keepSpelled(window: Uint8Array, decoded: number): Uint8Array {
  const kept = new Uint8Array(WINDOW_BYTES);
  for (let at = 0; at < decoded; at++) {
    const high = highBytes[at];
    if (high < 0x80) continue;
    const place = ((high & 0x7f) << 8) | lowBytes[at];
    kept[place] = window[place];
  }
  return kept;
}

/** What the data is with another window, as far as it can refer to it. Returns how much that is. */
function decodeWith(window: Uint8Array, { storedOffset, bits }: ResumePoint, following: Uint8Array, target: Uint8Array): number {
  using decoder = GzipDecoder.resume("window", { storedOffset, bits, window }, following.subarray(0, STEP_BYTES), Infinity);
  let filled = 0;
  for (let at = STEP_BYTES; ; at += STEP_BYTES) {
    for (let piece; filled < target.length && (piece = decoder.next()) !== undefined;) {
      const taken = piece.subarray(0, target.length - filled);
      target.set(taken, filled);
      filled += taken.length;
    }
    if (filled === target.length || at >= following.length) return filled;
    decoder.push(following.subarray(at, at + STEP_BYTES));
  }
}
