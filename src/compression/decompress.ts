import { gunzipped } from "./decompress-gzip.ts";
import { unzstd, type FrameEnded } from "./decompress-zstd.ts";
import type { AccessPoint } from "./gzip-decoder.ts";

export type Compression = "gzip" | "zstd" | "none";

const MAGIC_BYTES = 4;

/**
 * How a stream is compressed, told by its first four bytes (fewer if it is shorter). Media types are not asked: they
 * are wrong often enough. A zstd stream may start with a skippable frame.
 */
export function detectCompression(firstBytes: Uint8Array): Compression {
  const [a, b, c, d] = firstBytes;
  if (a === 0x1f && b === 0x8b) return "gzip";
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return "zstd";
  if (a !== undefined && a >> 4 === 5 && b === 0x2a && c === 0x4d && d === 0x18) return "zstd";
  return "none";
}

export interface Decompressed {
  readonly compression: Compression;
  /**
   * The bytes inside, in pieces that are valid until the next one is asked for. Iterate it once; leaving early ends the
   * input as well.
   */
  readonly stream: AsyncIterable<Uint8Array>;
}

/** Hears of where decoding could start in the middle, always before any content that is behind it comes. */
export interface DecompressObserver {
  /** Content of gzip data from one access point to the next, at least. */
  readonly spanBytes: number;
  readonly detected: (compression: Compression) => void;
  /** Stored bytes, in their order and before anything that is found in them; they must not be kept. */
  readonly stored: (bytes: Uint8Array) => void;
  readonly accessPoint: (point: AccessPoint) => void;
  readonly frameEnded: FrameEnded;
}

/**
 * Decompresses a stream as it arrives. All gzip members and zstd frames are decoded; zeros after the last gzip member
 * are padding. Memory stays bounded: input is taken only as fast as the result is consumed.
 * The stream throws `CORRUPT` with the position for broken or truncated data and for anything else that follows the
 * data, and `UNSUPPORTED` for zstd windows over 128 MiB or with a dictionary. Errors of the input pass unchanged.
 * @param name what to call the stream in messages
 * @param observer for those who want to read parts of the same data later
 */
export async function decompress(chunks: AsyncIterable<Uint8Array>, name: string, observer?: DecompressObserver): Promise<Decompressed> {
  const input = chunks[Symbol.asyncIterator]();
  const first = await firstChunk(input);
  const compression = detectCompression(first);
  observer?.detected(compression);
  const whole = observed(withFirst(first, input), observer);
  const points = observer === undefined ? undefined : { span: observer.spanBytes, found: observer.accessPoint };
  if (compression === "gzip") return { compression, stream: gunzipped(whole, name, points) };
  if (compression === "zstd") return { compression, stream: unzstd(whole, name, observer?.frameEnded) };
  return { compression, stream: whole };
}

function observed(chunks: AsyncIterable<Uint8Array>, observer: DecompressObserver | undefined): AsyncIterable<Uint8Array> {
  return observer === undefined ? chunks : reported(chunks, observer);
}

async function* reported(chunks: AsyncIterable<Uint8Array>, observer: DecompressObserver): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    observer.stored(chunk);
    yield chunk;
  }
}

/** The first bytes of a stream: enough to tell its compression unless the stream is shorter. Pieces need not stay what they are. */
async function firstChunk(input: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let first: Uint8Array = new Uint8Array(0);
  while (first.length < MAGIC_BYTES) {
    const next = await input.next();
    if (next.done === true) break;
    first = first.length === 0 && next.value.length >= MAGIC_BYTES ? next.value : Buffer.concat([first, next.value]);
  }
  return first;
}

async function* withFirst(first: Uint8Array, input: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  let ended = false;
  try {
    if (first.length > 0) yield first;
    for (;;) {
      const next = await input.next();
      if (next.done === true) break;
      if (next.value.length > 0) yield next.value;
    }
    ended = true;
  } finally {
    if (!ended) await input.return?.();
  }
}
