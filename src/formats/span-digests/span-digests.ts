import { u32 } from "../../bytes/struct.ts";
import { corrupt, unsupported } from "../../errors.ts";
import { CRC_BYTES, SPAN_DIGESTS_MAGIC, SPAN_DIGESTS_VERSION, spanDigestsCrc, spanDigestsEntry, spanDigestsHeader } from "./layout.ts";

export interface SpanDigest {
  readonly contentOffset: number;
  /** Of the content from there up to the next span, or to the end; 32 bytes. */
  readonly sha256: Uint8Array;
}

/** What the content of a layer is, span by span. */
export interface SpanDigests {
  readonly contentBytes: number;
  /** In their order; the first begins at 0, and none is empty. */
  readonly spans: readonly SpanDigest[];
}

/**
 * Reads a file of span digests. Throws `CORRUPT` for what is none or contradicts itself, `UNSUPPORTED` for another version.
 * @param name what to call the file in messages
 */
export function parseSpanDigests(bytes: Uint8Array, name: string): SpanDigests {
  const { size } = spanDigestsHeader;
  if (bytes.length < size + CRC_BYTES)
    throw corrupt(`${name}: span digests of ${bytes.length} bytes, expected ${size + CRC_BYTES} at least`);
  const { magic, version, spanCount, contentBytes } = spanDigestsHeader.decode(bytes);
  if (magic !== SPAN_DIGESTS_MAGIC || bytes[7] !== 0) throw corrupt(`${name}: begins with ${JSON.stringify(magic)}, expected span digests`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [crc, expectedCrc] = [u32.get(view, bytes.length - CRC_BYTES), spanDigestsCrc(bytes)];
  if (crc !== expectedCrc) throw corrupt(`${name}: span digests have the CRC ${crc}, expected ${expectedCrc}; fetch them again`);
  if (version !== SPAN_DIGESTS_VERSION) throw unsupported(`${name}: span digests of version ${version}, expected 1`);
  const expectedBytes = size + spanCount * spanDigestsEntry.size + CRC_BYTES;
  if (bytes.length !== expectedBytes)
    throw corrupt(`${name}: ${spanCount} span digests in ${bytes.length} bytes, expected ${expectedBytes}`);
  const spans = Array.from({ length: spanCount }, (_, span) => spanDigestsEntry.decode(bytes, size + span * spanDigestsEntry.size));
  checkOrder(spans, contentBytes, name);
  return { contentBytes, spans };
}

function checkOrder(spans: readonly SpanDigest[], contentBytes: number, name: string): void {
  if ((spans[0]?.contentOffset ?? contentBytes) !== 0) throw corrupt(`${name}: span digests do not begin where the content does`);
  for (const [span, { contentOffset }] of spans.entries()) {
    const end = spans[span + 1]?.contentOffset ?? contentBytes;
    if (end <= contentOffset) throw corrupt(`${name}: span ${span} is [${contentOffset}, ${end}) of the content, expected at least a byte`);
  }
}

export function encodeSpanDigests({ contentBytes, spans }: SpanDigests): Uint8Array {
  const { size } = spanDigestsHeader;
  const bytes = new Uint8Array(size + spans.length * spanDigestsEntry.size + CRC_BYTES);
  const header = { magic: SPAN_DIGESTS_MAGIC, version: SPAN_DIGESTS_VERSION, spanCount: spans.length, contentBytes };
  spanDigestsHeader.encodeInto(bytes, header);
  for (const [span, entry] of spans.entries()) spanDigestsEntry.encodeInto(bytes, entry, size + span * spanDigestsEntry.size);
  u32.set(new DataView(bytes.buffer), bytes.length - CRC_BYTES, spanDigestsCrc(bytes));
  return bytes;
}
