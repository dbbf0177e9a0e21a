import type { Compression, DecompressObserver } from "../compression/decompress.ts";
import { SPAN_BYTES } from "../compression/span-index.ts";
import { GzipIndexWriter } from "../formats/gzip-index/gzip-index-writer.ts";
import { encodeSpanDigests } from "../formats/span-digests/span-digests.ts";
import { ZstdIndexWriter } from "../formats/zstd-index/zstd-index-writer.ts";
import { SpanHashes } from "./span-hashes.ts";

/** What it takes to read a layer's content by ranges of its blob, as it is stored. */
export interface LayerIndex {
  readonly compression: Compression;
  /** Where the content can be decoded from; none for layers that are not compressed, or cannot be indexed. */
  readonly file: { readonly name: "gzip.meta" | "zstd.meta"; readonly bytes: Uint8Array } | undefined;
  /** The file of the spans' digests. */
  readonly spans: Uint8Array;
  readonly storedBytes: number;
  readonly contentBytes: number;
  /** Why the layer cannot be read by ranges, and what to do, if it cannot. */
  readonly unindexable?: string;
}

const UNINDEXABLE_GZIP = "the layer cannot be read lazily: use --overlaybd, or compress it anew";
const UNINDEXABLE_ZSTD = "the layer cannot be read lazily: use --overlaybd, or --recompress gzip";

/**
 * Makes a layer's index while the layer is decompressed: give `observer` to `decompress`, and `content` all that comes out.
 * The result is the same however the layer arrives.
 */
export class LayerIndexer {
  readonly observer: DecompressObserver;
  readonly #hashes = new SpanHashes();
  readonly #gzip: GzipIndexWriter;
  readonly #zstd = new ZstdIndexWriter();
  #compression: Compression = "none";
  #storedBytes = 0;
  #contentBytes = 0;

  /** @param spanBytes content of gzip layers from one access point to the next, at least */
  constructor(spanBytes: number = SPAN_BYTES) {
    this.#gzip = new GzipIndexWriter(spanBytes);
    this.observer = {
      spanBytes,
      detected: (compression) => {
        this.#compression = compression;
      },
      stored: (bytes) => {
        this.#storedBytes += bytes.length;
        if (this.#compression === "gzip") this.#gzip.stored(bytes);
      },
      accessPoint: (point) => {
        this.#gzip.point(point);
        this.#hashes.endAt(point.contentOffset);
      },
      frameEnded: (frame, contentEnd) => {
        if (this.#zstd.frame(frame, contentEnd)) this.#hashes.endAt(contentEnd);
      },
    };
  }

  /** Takes the next content; it is free for other uses afterwards. */
  content(bytes: Uint8Array): void {
    if (this.#compression === "none") this.#endPlainSpans(this.#contentBytes + bytes.length);
    this.#contentBytes += bytes.length;
    this.#hashes.content(bytes);
  }

  /** The index of the whole layer; call it once, when all of its content has come. */
  async finish(): Promise<LayerIndex> {
    const spans = encodeSpanDigests(await this.#hashes.finish());
    const index = { compression: this.#compression, spans, storedBytes: this.#storedBytes, contentBytes: this.#contentBytes };
    if (this.#compression === "gzip") return { ...index, ...(await this.#gzipFile()) };
    if (this.#compression === "zstd") return { ...index, ...this.#zstdFile() };
    return { ...index, file: undefined };
  }

  #endPlainSpans(contentEnd: number): void {
    const first = Math.floor(this.#contentBytes / SPAN_BYTES) + 1;
    for (let end = first * SPAN_BYTES; end <= contentEnd; end += SPAN_BYTES) this.#hashes.endAt(end);
  }

  async #gzipFile(): Promise<Pick<LayerIndex, "file" | "unindexable">> {
    const bytes = await this.#gzip.finish(this.#contentBytes);
    const reason = this.#gzip.unindexable(this.#contentBytes);
    if (reason !== undefined) return { file: undefined, unindexable: `${reason}: ${UNINDEXABLE_GZIP}` };
    return { file: { name: "gzip.meta", bytes } };
  }

  #zstdFile(): Pick<LayerIndex, "file" | "unindexable"> {
    const reason = this.#zstd.unindexable;
    if (reason !== undefined) return { file: undefined, unindexable: `${reason}: ${UNINDEXABLE_ZSTD}` };
    return { file: { name: "zstd.meta", bytes: this.#zstd.finish(this.#storedBytes) } };
  }
}
