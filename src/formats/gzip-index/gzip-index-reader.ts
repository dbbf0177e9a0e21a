import { inflateSync } from "node:zlib";
import { decodeGzipSpan } from "../../compression/decode-gzip-span.ts";
import type { SpanIndex, StoredRange } from "../../compression/span-index.ts";
import { corrupt, messageOf, unsupported } from "../../errors.ts";
import {
  ALGORITHM_NONE,
  ALGORITHM_ZLIB,
  GZIP_INDEX_MAGIC,
  gzipIndexEntry,
  gzipIndexHeader,
  headerCrc,
  MAJOR_VERSION,
  MAX_ENTRIES,
  MAX_SPAN_BYTES,
  MAX_STORED_SPAN_BYTES,
  WINDOW_BYTES,
} from "./layout.ts";

/** A byte of DEFLATE data cannot unfold to more. */
const MAX_RATIO = 1032;

type Header = ReturnType<typeof gzipIndexHeader.decode>;
type Entry = ReturnType<typeof gzipIndexEntry.decode>;

/**
 * Reads a gzip index, which must not change afterwards: windows stay compressed in it until they are needed. Header and
 * entries are checked; windows when they are used. Throws `CORRUPT` for what is none or contradicts itself, `UNSUPPORTED`
 * for spans or counts beyond what is read.
 * @param name what to call the index in messages
 */
export function parseGzipIndex(bytes: Uint8Array, name: string): SpanIndex {
  const header = parseHeader(bytes, name);
  return new GzipSpans(bytes, header, parseEntries(bytes, header, name), name);
}

function parseHeader(bytes: Uint8Array, name: string): Header {
  const { size } = gzipIndexHeader;
  if (bytes.length < size) throw corrupt(`${name}: a gzip index of ${bytes.length} bytes, expected ${size} at least`);
  const magic = Buffer.from(bytes.subarray(0, 8)).toString("latin1");
  if (magic !== `${GZIP_INDEX_MAGIC}\0`) throw corrupt(`${name}: begins with ${JSON.stringify(magic)}, expected a gzip index`);
  const crc = headerCrc(bytes);
  const header = gzipIndexHeader.decode(bytes);
  const expect = (field: keyof Header, ...expected: number[]): void => {
    const found = header[field];
    if (typeof found === "number" && expected.includes(found)) return;
    throw corrupt(`${name}: gzip index header: ${field} is ${String(found)}, expected ${expected.join(" or ")}`);
  };
  expect("headerCrc", crc);
  if (header.majorVersion !== MAJOR_VERSION) throw unsupported(`${name}: a gzip index of version ${header.majorVersion}, expected 1`);
  expect("dictionaryAlgorithm", ALGORITHM_NONE, ALGORITHM_ZLIB);
  expect("windowBytes", WINDOW_BYTES);
  expect("entryBytes", gzipIndexEntry.size);
  expect("indexBytes", bytes.length);
  expect("entriesBytes", bytes.length - header.entriesOffset);
  if (header.entriesOffset < size) throw corrupt(`${name}: gzip index header: entries at ${header.entriesOffset}, inside of the header`);
  if (header.contentBytes > header.storedBytes * MAX_RATIO) {
    throw corrupt(`${name}: gzip index header: ${header.storedBytes} bytes cannot have ${header.contentBytes} bytes of content`);
  }
  return header;
}

/** The entries of which content follows, in their order. */
function parseEntries(bytes: Uint8Array, header: Header, name: string): Entry[] {
  const { entryCount } = header;
  if (entryCount > MAX_ENTRIES) throw unsupported(`${name}: a gzip index of ${entryCount} entries, expected at most ${MAX_ENTRIES}`);
  const table = entryTable(bytes.subarray(header.entriesOffset), header, name);
  const entries: Entry[] = [];
  let last: Entry = { contentOffset: 0, storedOffset: 0, windowOffset: 0, bits: 0, windowBytes: 0 };
  for (let number = 0; number < entryCount; number++) {
    const entry = gzipIndexEntry.decode(table, number * gzipIndexEntry.size);
    const wrong = wrongEntry(entry, number === 0 ? undefined : last, header);
    if (wrong !== undefined) throw corrupt(`${name}: gzip index entry ${number}: ${wrong}`);
    if (number > 0 && entry.contentOffset > last.contentOffset) entries.push(last);
    last = entry;
  }
  if (header.contentBytes > last.contentOffset && entryCount > 0) entries.push(last);
  else if (header.contentBytes > 0 && entryCount === 0) throw corrupt(`${name}: a gzip index without entries`);
  checkSpans(entries, header.contentBytes, name);
  return entries;
}

function entryTable(stored: Uint8Array, { entryCount, dictionaryAlgorithm }: Header, name: string): Uint8Array {
  const tableBytes = entryCount * gzipIndexEntry.size;
  if (dictionaryAlgorithm === ALGORITHM_ZLIB) return inflated(stored, tableBytes, `${name}: gzip index entries`);
  if (stored.length === tableBytes) return stored;
  throw corrupt(`${name}: gzip index entries: ${stored.length} bytes, expected ${tableBytes}`);
}

function inflated(stored: Uint8Array, expectedBytes: number, what: string): Uint8Array {
  if (expectedBytes > stored.length * MAX_RATIO) throw corrupt(`${what}: ${stored.length} bytes cannot hold ${expectedBytes}`);
  let bytes: Uint8Array;
  try {
    bytes = inflateSync(stored, { maxOutputLength: Math.max(expectedBytes, 1) });
  } catch (error) {
    throw corrupt(`${what}: not the zlib data of ${expectedBytes} bytes that was expected (${messageOf(error)})`, { cause: error });
  }
  if (bytes.length !== expectedBytes) throw corrupt(`${what}: ${bytes.length} bytes, expected ${expectedBytes}`);
  return bytes;
}

function wrongEntry(entry: Entry, last: Entry | undefined, header: Header): string | undefined {
  const { contentOffset, storedOffset, windowOffset, windowBytes, bits } = entry;
  if (last === undefined && contentOffset !== 0) return `begins at ${contentOffset} of the content, expected 0`;
  if (last !== undefined && contentOffset < last.contentOffset) return `begins at ${contentOffset} of the content, before the last one`;
  if (contentOffset > header.contentBytes) return `begins at ${contentOffset} of ${header.contentBytes} bytes of content`;
  if (storedOffset > header.storedBytes) return `begins at ${storedOffset} of ${header.storedBytes} stored bytes`;
  if (last !== undefined && storedOffset < last.storedOffset) return `begins at stored byte ${storedOffset}, before the last one`;
  if (bits > 7 || bits > storedOffset * 8) return `${bits} bits before byte ${storedOffset}`;
  if (windowOffset < gzipIndexHeader.size || windowOffset + windowBytes > header.entriesOffset) {
    return `its window is [${windowOffset}, ${windowOffset + windowBytes}), expected to be in [${gzipIndexHeader.size}, ${header.entriesOffset})`;
  }
  if (header.dictionaryAlgorithm === ALGORITHM_NONE && windowBytes !== WINDOW_BYTES) return `a window of ${windowBytes} bytes`;
  return undefined;
}

/** The last span's stored bytes are not looked at: behind them may be members that the index leaves out. */
function checkSpans(entries: readonly Entry[], contentBytes: number, name: string): void {
  for (const [number, { contentOffset, storedOffset }] of entries.entries()) {
    const next = entries[number + 1] ?? { contentOffset: contentBytes, storedOffset };
    const [content, stored] = [next.contentOffset - contentOffset, next.storedOffset - storedOffset];
    if (content <= MAX_SPAN_BYTES && stored <= MAX_STORED_SPAN_BYTES) continue;
    throw unsupported(
      `${name}: no access point in ${content} bytes of content (${stored} stored) from ${contentOffset} on, expected at most ${MAX_SPAN_BYTES} (${MAX_STORED_SPAN_BYTES}); convert the layer to overlaybd`,
    );
  }
}

class GzipSpans implements SpanIndex {
  readonly storedBytes: number;
  readonly contentBytes: number;
  readonly #bytes: Uint8Array;
  readonly #isCompressed: boolean;
  readonly #entries: readonly Entry[];
  readonly #name: string;

  constructor(bytes: Uint8Array, header: Header, entries: readonly Entry[], name: string) {
    this.storedBytes = header.storedBytes;
    this.contentBytes = header.contentBytes;
    this.#bytes = bytes;
    this.#isCompressed = header.dictionaryAlgorithm === ALGORITHM_ZLIB;
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
    const { storedOffset, bits } = this.#entries[span];
    const end = this.#entries[span + 1]?.storedOffset ?? Math.min(this.storedBytes, storedOffset + MAX_STORED_SPAN_BYTES);
    return { start: storedOffset - (bits === 0 ? 0 : 1), end };
  }

  decode(span: number, stored: Uint8Array): Uint8Array {
    const { start, end } = this.storedRange(span);
    if (stored.length !== end - start) throw corrupt(`${this.#name}: span ${span} is ${stored.length} bytes, expected ${end - start}`);
    const { contentOffset, storedOffset, bits } = this.#entries[span];
    const contentBytes = this.contentOffset(span + 1) - contentOffset;
    const point = { storedOffset, bits, window: this.#window(span) };
    return decodeGzipSpan({ point, contentBytes, isLast: span + 1 === this.spanCount }, stored, this.#name);
  }

  #window(span: number): Uint8Array {
    const { windowOffset, windowBytes } = this.#entries[span];
    const stored = this.#bytes.subarray(windowOffset, windowOffset + windowBytes);
    return this.#isCompressed ? inflated(stored, WINDOW_BYTES, `${this.#name}: gzip index window ${span}`) : stored;
  }
}
