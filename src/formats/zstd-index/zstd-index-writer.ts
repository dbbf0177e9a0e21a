import { u32 } from "../../bytes/struct.ts";
import type { ZstdFrame } from "../../compression/zstd-frames.ts";
import {
  CRC_BYTES,
  GROUP_BYTES,
  MAX_FRAME_BYTES,
  MAX_STORED_SPAN_BYTES,
  ZSTD_INDEX_MAGIC,
  ZSTD_INDEX_VERSION,
  zstdIndexCrc,
  zstdIndexEntry,
  zstdIndexHeader,
} from "./layout.ts";

interface Span extends ZstdFrame {
  readonly contentOffset: number;
  readonly contentEnd: number;
}

/** Makes the index of zstd data from its frames. */
export class ZstdIndexWriter {
  readonly #spans: Span[] = [];
  /** The span that the next frame belongs to as well. */
  #open: Span | undefined;
  #contentEnd = 0;
  #frames = 0;
  #unindexable: string | undefined;

  /** Takes the next frame. True when the next one begins a new span. */
  frame({ storedStart, storedEnd }: ZstdFrame, contentEnd: number): boolean {
    const content = contentEnd - this.#contentEnd;
    this.#contentEnd = contentEnd;
    this.#frames++;
    if (content > MAX_FRAME_BYTES) this.#unindexable ??= `a frame of ${content} bytes at stored byte ${storedStart}`;
    const span = this.#open ?? { storedStart, storedEnd, contentOffset: contentEnd - content, contentEnd };
    this.#open = { ...span, storedEnd, contentEnd };
    const storedBytes = storedEnd - span.storedStart;
    if (storedBytes > MAX_STORED_SPAN_BYTES) this.#unindexable ??= `frames of ${storedBytes} stored bytes from ${span.storedStart} on`;
    const isFull = contentEnd - span.contentOffset >= GROUP_BYTES || storedBytes >= MAX_STORED_SPAN_BYTES / 2;
    if (isFull) this.#close();
    return isFull;
  }

  /** The index of data that has ended, unless it is unindexable. */
  finish(storedBytes: number): Uint8Array {
    this.#close();
    const { size } = zstdIndexHeader;
    const bytes = new Uint8Array(size + this.#spans.length * zstdIndexEntry.size + CRC_BYTES);
    const spanCount = this.#spans.length;
    const header = { magic: ZSTD_INDEX_MAGIC, version: ZSTD_INDEX_VERSION, spanCount, storedBytes, contentBytes: this.#contentEnd };
    zstdIndexHeader.encodeInto(bytes, header);
    for (const [number, { contentOffset, storedStart, storedEnd }] of this.#spans.entries()) {
      const entry = { contentOffset, storedOffset: storedStart, storedBytes: storedEnd - storedStart };
      zstdIndexEntry.encodeInto(bytes, entry, size + number * zstdIndexEntry.size);
    }
    u32.set(new DataView(bytes.buffer), bytes.length - CRC_BYTES, zstdIndexCrc(bytes));
    return bytes;
  }

  /** Why the data cannot be read from the middle, if it cannot. */
  get unindexable(): string | undefined {
    if (this.#unindexable !== undefined && this.#frames === 1) return `one frame of ${this.#contentEnd} bytes`;
    return this.#unindexable;
  }

  #close(): void {
    if (this.#open !== undefined && this.#open.contentEnd > this.#open.contentOffset) this.#spans.push(this.#open);
    this.#open = undefined;
  }
}
