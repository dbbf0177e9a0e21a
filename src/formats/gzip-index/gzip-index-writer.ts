import { deflate, deflateSync } from "node:zlib";
import { promisify } from "node:util";
import type { AccessPoint } from "../../compression/gzip-decoder.ts";
import { LazyError } from "../../errors.ts";
import {
  ALGORITHM_ZLIB,
  GZIP_INDEX_MAGIC,
  gzipIndexEntry,
  gzipIndexHeader,
  headerCrc,
  MAJOR_VERSION,
  MAX_ENTRIES,
  MAX_SPACING_BYTES,
  MAX_SPAN_BYTES,
  MAX_STORED_SPAN_BYTES,
  MIN_SPACING_BYTES,
  WINDOW_BYTES,
} from "./layout.ts";
import { FOLLOWING_BYTES, trimWindow } from "./trim-window.ts";

const LEVEL = 6;
/** Windows that are being compressed on other threads; more are compressed on this one. */
const MAX_COMPRESSING = 8;

const deflateElsewhere = promisify<Uint8Array, { level: number }, Buffer>(deflate);

/** A point, and the stored data that follows it as far as it has come. */
interface Pending {
  readonly point: AccessPoint;
  readonly following: Buffer;
  filled: number;
}

interface Entry extends Pick<AccessPoint, "contentOffset" | "storedOffset" | "bits"> {
  readonly window: Uint8Array | Promise<Uint8Array>;
}

/**
 * Makes the index of gzip data while that is decoded. Of a window, what nothing refers to is zeros, and all of them are
 * compressed at once: memory grows by a few kilobytes a point.
 */
export class GzipIndexWriter {
  readonly #spanBytes: number;
  readonly #entries: Entry[] = [];
  readonly #pending: Pending[] = [];
  #compressing = 0;
  /** Stored data: what came last, and what there was before it, which is not there any more. */
  #stored: Uint8Array = new Uint8Array(0);
  #storedBytes = 0;
  #storedBefore = 0;

  /** @param spanBytes content from one point to the next, at least: 64 KiB to 8 MiB, otherwise it throws `USAGE` */
  constructor(spanBytes: number) {
    if (!Number.isInteger(spanBytes) || spanBytes < MIN_SPACING_BYTES || spanBytes > MAX_SPACING_BYTES) {
      throw new LazyError("USAGE", `access points every ${spanBytes} bytes, expected ${MIN_SPACING_BYTES} to ${MAX_SPACING_BYTES}`);
    }
    this.#spanBytes = spanBytes;
  }

  /** Takes the next stored bytes, which must stay as they are until others come. */
  stored(bytes: Uint8Array): void {
    this.#storedBefore = this.#storedBytes;
    this.#storedBytes += bytes.length;
    this.#stored = bytes;
    for (const pending of this.#pending) follow(pending, bytes);
    this.#addFollowed((pending) => pending.filled === FOLLOWING_BYTES);
  }

  /** Takes a point that has been found in the stored bytes that came last. */
  point(point: AccessPoint): void {
    const pending: Pending = { point, following: Buffer.allocUnsafe(FOLLOWING_BYTES), filled: 0 };
    const start = point.storedOffset - (point.bits === 0 ? 0 : 1) - this.#storedBefore;
    follow(pending, this.#stored.subarray(start));
    this.#pending.push(pending);
    this.#addFollowed(({ filled }) => filled === FOLLOWING_BYTES);
  }

  /** The index of data that has ended, with so much content. */
  async finish(contentBytes: number): Promise<Uint8Array> {
    this.#addFollowed(() => true);
    const entries = this.#entries.filter(({ contentOffset }, number) => number === 0 || contentOffset < contentBytes);
    const windows = await Promise.all(entries.map(async ({ window }) => await window));
    const table = Buffer.alloc(entries.length * gzipIndexEntry.size);
    let windowOffset = gzipIndexHeader.size;
    for (const [number, { contentOffset, storedOffset, bits }] of entries.entries()) {
      const windowBytes = windows[number].length;
      const entry = { contentOffset, storedOffset, windowOffset, bits, windowBytes };
      gzipIndexEntry.encodeInto(table, entry, number * gzipIndexEntry.size);
      windowOffset += windowBytes;
    }
    const storedTable = deflateSync(table, { level: LEVEL });
    const header = this.#header(entries.length, contentBytes, windowOffset, storedTable.length);
    return new Uint8Array(Buffer.concat([header, ...windows, storedTable])); // in memory of its own, which can go to another thread
  }

  /** Why the data cannot be read from the middle, if it cannot. Call it after `finish`. */
  unindexable(contentBytes: number): string | undefined {
    if (this.#entries.length > MAX_ENTRIES) return `${this.#entries.length} access points, expected at most ${MAX_ENTRIES}`;
    for (const [number, { contentOffset, storedOffset }] of this.#entries.entries()) {
      const next = this.#entries[number + 1] ?? { contentOffset: contentBytes, storedOffset: this.#storedBytes };
      const [content, stored] = [next.contentOffset - contentOffset, next.storedOffset - storedOffset];
      if (content > MAX_SPAN_BYTES || stored > MAX_STORED_SPAN_BYTES) {
        return `${content} bytes of content (${stored} stored) from ${contentOffset} on without a point to start from`;
      }
    }
    return undefined;
  }

  #header(entryCount: number, contentBytes: number, entriesOffset: number, entriesBytes: number): Uint8Array {
    const header = gzipIndexHeader.encode({
      magic: GZIP_INDEX_MAGIC,
      majorVersion: MAJOR_VERSION,
      dictionaryAlgorithm: ALGORITHM_ZLIB,
      dictionaryLevel: LEVEL,
      spanBytes: this.#spanBytes,
      windowBytes: WINDOW_BYTES,
      entryBytes: gzipIndexEntry.size,
      entryCount,
      storedBytes: this.#storedBytes,
      indexBytes: entriesOffset + entriesBytes,
      contentBytes,
      entriesOffset,
      entriesBytes,
    });
    gzipIndexHeader.encodeInto(header, { headerCrc: headerCrc(header) });
    return header;
  }

  #addFollowed(isFollowed: (pending: Pending) => boolean): void {
    while (this.#pending.length > 0 && isFollowed(this.#pending[0])) {
      const { point, following, filled } = this.#pending.shift()!;
      const { contentOffset, storedOffset, bits } = point;
      this.#entries.push({ contentOffset, storedOffset, bits, window: this.#compress(trimWindow(point, following.subarray(0, filled))) });
    }
  }

  #compress(window: Uint8Array): Uint8Array | Promise<Uint8Array> {
    // A copy: what zlib gives is a view of a buffer of 16 KiB.
    if (this.#compressing >= MAX_COMPRESSING) return new Uint8Array(deflateSync(window, { level: LEVEL }));
    this.#compressing++;
    const compressed = deflateElsewhere(window, { level: LEVEL })
      .then((bytes) => new Uint8Array(bytes))
      .finally(() => this.#compressing--);
    compressed.catch(() => {}); // `finish` reports it, if it is called
    return compressed;
  }
}

function follow(pending: Pending, bytes: Uint8Array): void {
  const taken = bytes.subarray(0, FOLLOWING_BYTES - pending.filled);
  pending.following.set(taken, pending.filled);
  pending.filled += taken.length;
}
