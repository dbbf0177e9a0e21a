import { u32 } from "../../bytes/struct.ts";
import { decodeZstdSpan } from "../../compression/decode-zstd-span.ts";
import type { SpanIndex, StoredRange } from "../../compression/span-index.ts";
import { corrupt, unsupported } from "../../errors.ts";
import {
  CRC_BYTES,
  MAX_SPAN_BYTES,
  MAX_STORED_SPAN_BYTES,
  ZSTD_INDEX_MAGIC,
  ZSTD_INDEX_VERSION,
  zstdIndexCrc,
  zstdIndexEntry,
  zstdIndexHeader,
} from "./layout.ts";

type Header = ReturnType<typeof zstdIndexHeader.decode>;
type Entry = ReturnType<typeof zstdIndexEntry.decode>;

/**
 * Reads the index of a zstd blob. Throws `CORRUPT` for what is none or contradicts itself, `UNSUPPORTED` for another version.
 * @param name what to call the index in messages
 */
export function parseZstdIndex(bytes: Uint8Array, name: string): SpanIndex {
  const { size } = zstdIndexHeader;
  if (bytes.length < size + CRC_BYTES)
    throw corrupt(`${name}: a zstd index of ${bytes.length} bytes, expected ${size + CRC_BYTES} at least`);
  const magic = Buffer.from(bytes.subarray(0, 8)).toString("latin1");
  if (magic !== `${ZSTD_INDEX_MAGIC}\0`) throw corrupt(`${name}: begins with ${JSON.stringify(magic)}, expected a zstd index`);
  const [crc, expectedCrc] = [u32.get(new DataView(bytes.buffer, bytes.byteOffset), bytes.length - CRC_BYTES), zstdIndexCrc(bytes)];
  if (crc !== expectedCrc) throw corrupt(`${name}: the zstd index has the CRC ${crc}, expected ${expectedCrc}; fetch it again`);
  const header = zstdIndexHeader.decode(bytes);
  if (header.version !== ZSTD_INDEX_VERSION) throw unsupported(`${name}: a zstd index of version ${header.version}, expected 1`);
  const expectedBytes = size + header.spanCount * zstdIndexEntry.size + CRC_BYTES;
  if (bytes.length !== expectedBytes)
    throw corrupt(`${name}: ${header.spanCount} spans in ${bytes.length} bytes, expected ${expectedBytes}`);
  const entries = Array.from({ length: header.spanCount }, (_, span) => zstdIndexEntry.decode(bytes, size + span * zstdIndexEntry.size));
  checkEntries(entries, header, name);
  return new ZstdSpans(header, entries, name);
}

function checkEntries(entries: readonly Entry[], { contentBytes, storedBytes }: Header, name: string): void {
  if ((entries[0]?.contentOffset ?? contentBytes) !== 0) throw corrupt(`${name}: the zstd index does not begin where the content does`);
  let storedEnd = 0;
  for (const [span, entry] of entries.entries()) {
    const length = (entries[span + 1]?.contentOffset ?? contentBytes) - entry.contentOffset;
    const fits = entry.storedOffset >= storedEnd && entry.storedOffset + entry.storedBytes <= storedBytes;
    storedEnd = entry.storedOffset + entry.storedBytes;
    if (fits && length > 0 && length <= MAX_SPAN_BYTES && entry.storedBytes <= MAX_STORED_SPAN_BYTES) continue;
    throw corrupt(
      `${name}: span ${span} has ${length} bytes of content in [${entry.storedOffset}, ${storedEnd}) of ${storedBytes} stored bytes, expected 1 to ${MAX_SPAN_BYTES} after the last span`,
    );
  }
}

class ZstdSpans implements SpanIndex {
  readonly storedBytes: number;
  readonly contentBytes: number;
  readonly #entries: readonly Entry[];
  readonly #name: string;

  constructor({ storedBytes, contentBytes }: Header, entries: readonly Entry[], name: string) {
    this.storedBytes = storedBytes;
    this.contentBytes = contentBytes;
    this.#entries = entries;
    this.#name = name;
  }

  get spanCount(): number {
    return this.#entries.length;
  }

  contentOffset(span: number): number {
    return this.#entries[span]?.contentOffset ?? this.contentBytes;
  }

  storedRange(span: number): StoredRange {
    const { storedOffset, storedBytes } = this.#entries[span];
    return { start: storedOffset, end: storedOffset + storedBytes };
  }

  decode(span: number, stored: Uint8Array): Uint8Array {
    return decodeZstdSpan(stored, this.contentOffset(span + 1) - this.contentOffset(span), `${this.#name}: span ${span}`);
  }
}
