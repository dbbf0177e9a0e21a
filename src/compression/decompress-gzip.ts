import { GzipDecoder, type AccessPointOptions } from "./gzip-decoder.ts";

/** The content of all members of a gzip stream, in pieces that are valid until the next one is asked for; see `decompress`. */
export async function* gunzipped(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
  points?: AccessPointOptions,
): AsyncGenerator<Uint8Array, void> {
  using decoder = new GzipDecoder(name, points);
  for await (const chunk of chunks) {
    decoder.push(chunk);
    for (let piece; (piece = decoder.next()) !== undefined;) yield piece;
  }
  decoder.close();
}
