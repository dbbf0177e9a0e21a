import type { Transform } from "node:stream";
import { corrupt, LazyError, messageOf } from "../errors.ts";

/** Bytes of output that are decoded in one go. */
export const OUTPUT_CHUNK_BYTES = 256 * 1024;

/** One of the decoders of node:zlib. */
export interface Decoder extends Transform {
  /** Bytes of input that have been consumed. */
  readonly bytesWritten: number;
}

/** Feeds a decoder until its input ends. `write` resolves once the bytes are decoded and their output is wanted. */
export type Feed = (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>;

/**
 * What a decoder makes of what `feed` writes to it. Failures of the decoder become `CORRUPT`; what `feed` throws passes
 * unchanged, even when the decoder considers itself done.
 */
export async function* decoded(decoder: Decoder, feed: Feed, name: string): AsyncGenerator<Uint8Array, void> {
  const feeding = feedAndEnd(decoder, feed);
  feeding.catch(() => {}); // it may fail while the consumer is busy; the loop or the await below reports it
  try {
    for await (const chunk of decoder) yield chunk as Uint8Array;
    await feeding;
  } catch (error) {
    throw translated(error, decoder, name);
  } finally {
    decoder.destroy();
    await Promise.allSettled([feeding]);
  }
}

async function feedAndEnd(decoder: Decoder, feed: Feed): Promise<void> {
  try {
    await feed(async (bytes) => await written(decoder, bytes));
    decoder.end();
  } catch (error) {
    decoder.destroy(error instanceof Error ? error : new Error(messageOf(error)));
    throw error;
  }
}

/** A failed or abandoned decoder calls no callback, but it closes. */
async function written(decoder: Decoder, bytes: Uint8Array): Promise<void> {
  if (decoder.destroyed) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      decoder.off("close", done);
      resolve();
    };
    decoder.once("close", done);
    decoder.write(bytes, done);
  });
}

function translated(error: unknown, decoder: Decoder, name: string): unknown {
  if (error instanceof LazyError || !(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return error;
  if (!error.code.startsWith("Z_") && !error.code.startsWith("ZSTD_error")) return error;
  const what = error.code === "Z_BUF_ERROR" ? "the compressed data ends in the middle" : `the compressed data is broken (${error.message})`;
  return corrupt(`${name}: ${what}, past byte ${decoder.bytesWritten}; fetch it again`, { cause: error });
}
