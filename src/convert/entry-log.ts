import type { PayloadEntry } from "../tree/filesystem-writer.ts";
import type { ByteString, EntryType, Timespec } from "../tree/entry.ts";
import { mentionsWhiteout } from "../tree/layer-changes.ts";

/** An entry, where its data is in the payload, and where in the archive. */
export interface ScannedEntry extends PayloadEntry {
  /**
   * Offset in the uncompressed archive of the first byte of what is stored: the extents, one after the other. 0 where nothing is;
   * ascending otherwise.
   */
  readonly dataOffset: number;
}

const TYPES: readonly EntryType[] = ["file", "directory", "symlink", "hardlink", "character", "block", "fifo"];
/** Chunks start small, because most layers have few entries, and double up to this size. */
const MAX_CHUNK_BYTES = 1 << 20;
const MIN_CHUNK_BYTES = 1 << 14;
/** In front of a chunk: how many entries it has, and whether one mentions a whiteout. */
const HEADER_BYTES = 5;
/** Room for everything in an entry but strings, attributes and runs: at most 16 numbers of 8 bytes. */
const FIXED_BYTES = 128;
const NUMBER_BYTES = 8;

/** What an entry's first byte says besides its type (3 bits): which parts follow. */
const HAS = { owner: 8, otherTimes: 16, nanoseconds: 32, content: 64, rare: 128 } as const;
/** Parts that few entries have; they are told by a byte of their own. */
const RARE = { link: 1, device: 2, xattrs: 4, runs: 8 } as const;

/**
 * A layer's entries, packed: a million of them take some 40 MB instead of ten times that as objects. Appended once, then gone
 * through any number of times; each round makes its objects anew.
 */
export class EntryLog implements Iterable<ScannedEntry> {
  readonly #chunks: Buffer<ArrayBuffer>[] = [];
  readonly #writer = new Writer();
  #count = 0;
  #mayHide = false;

  /** The log that `chunks` came from, perhaps in another thread. */
  static from(chunks: readonly Uint8Array<ArrayBuffer>[]): EntryLog {
    const log = new EntryLog();
    for (const chunk of chunks) {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
      log.#count += bytes.readUInt32LE(0);
      log.#mayHide ||= bytes[4] === 1;
      log.#chunks.push(bytes);
    }
    return log;
  }

  get count(): number {
    return this.#count;
  }

  /** Whether an entry mentions a whiteout; without one there is nothing to look for before the entries are applied. */
  get mayHide(): boolean {
    return this.#mayHide;
  }

  /** All entries as byte arrays, each with an `ArrayBuffer` of its own that can be transferred. The log must not be used afterwards. */
  chunks(): Buffer<ArrayBuffer>[] {
    this.#endChunk();
    return this.#chunks;
  }

  append(entry: ScannedEntry): void {
    const hides = mentionsWhiteout(entry.path) || mentionsWhiteout(entry.link);
    if (!this.#writer.hasRoom(sizeBound(entry))) {
      this.#endChunk();
      this.#writer.begin(Math.max(chunkBytes(this.#chunks.length), HEADER_BYTES + sizeBound(entry)));
    }
    this.#writer.entry(entry, hides);
    this.#mayHide ||= hides;
    this.#count++;
  }

  #endChunk(): void {
    const chunk = this.#writer.end();
    if (chunk) this.#chunks.push(chunk);
  }

  *[Symbol.iterator](): Generator<ScannedEntry, void> {
    this.#endChunk();
    for (const chunk of this.#chunks) {
      const reader = new Reader(chunk);
      while (reader.more) yield reader.entry();
    }
  }
}

function chunkBytes(chunksBefore: number): number {
  return Math.min(MAX_CHUNK_BYTES, MIN_CHUNK_BYTES * 2 ** chunksBefore);
}

function sizeBound(entry: ScannedEntry): number {
  const pieces = entry.runs.length + entry.extents.length;
  let bytes = FIXED_BYTES + entry.path.length + entry.link.length + pieces * 2 * NUMBER_BYTES;
  if (entry.xattrs.size > 0) for (const [name, value] of entry.xattrs) bytes += name.length + value.length + 2 * NUMBER_BYTES;
  return bytes;
}

function sameTime(a: Timespec, b: Timespec): boolean {
  return a === b || (a.seconds === b.seconds && a.nanoseconds === b.nanoseconds);
}

function sharedPrefix(a: string, b: string): number {
  let length = 0;
  const end = Math.min(a.length, b.length);
  while (length < end && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  return length;
}

/** Data from the file's front to its end, as all but sparse files have it. */
function isOnePiece({ runs, extents, size }: ScannedEntry): boolean {
  const [run, extent] = [runs[0], extents[0]];
  return runs.length === 1 && run.fileBlock === 0 && extents.length === 1 && extent.offset === 0 && extent.length === size;
}

function rareParts(entry: ScannedEntry): number {
  const { runs } = entry;
  return (
    (entry.link === "" ? 0 : RARE.link) |
    (entry.major === 0 && entry.minor === 0 ? 0 : RARE.device) |
    (entry.xattrs.size === 0 ? 0 : RARE.xattrs) |
    (runs.length === 0 || isOnePiece(entry) ? 0 : RARE.runs)
  );
}

/** Whole numbers below 2^53 in groups of 7 bits, the lowest first; the high bit says that more follow. Each chunk stands alone. */
class Writer {
  #buffer: Buffer<ArrayBuffer> = Buffer.alloc(0);
  #at = 0;
  #count = 0;
  #mayHide = false;
  #path: ByteString = "";
  #dataOffset = 0;
  #mode = 0;
  #uid = 0;
  #gid = 0;

  hasRoom(bytes: number): boolean {
    return this.#at + bytes <= this.#buffer.length;
  }

  begin(bytes: number): void {
    this.#buffer = Buffer.allocUnsafeSlow(bytes);
    this.#at = HEADER_BYTES;
    this.#count = 0;
    this.#mayHide = false;
    this.#path = "";
    this.#dataOffset = 0;
    this.#mode = this.#uid = this.#gid = 0;
  }

  /** The chunk with what was written since `begin`, if anything. */
  end(): Buffer<ArrayBuffer> | undefined {
    if (this.#count === 0) return undefined;
    this.#buffer.writeUInt32LE(this.#count, 0);
    this.#buffer[4] = this.#mayHide ? 1 : 0;
    const chunk = this.#buffer.subarray(0, this.#at);
    this.#buffer = Buffer.alloc(0);
    this.#at = 0;
    this.#count = 0;
    return chunk;
  }

  entry(entry: ScannedEntry, hides: boolean): void {
    const { path, mode, uid, gid, mtime, atime, ctime, runs } = entry;
    const sameOwner = mode === this.#mode && uid === this.#uid && gid === this.#gid;
    const sameTimes = sameTime(atime, mtime) && sameTime(ctime, mtime);
    const wholeSeconds = mtime.nanoseconds === 0 && (sameTimes || (atime.nanoseconds === 0 && ctime.nanoseconds === 0));
    const rare = rareParts(entry);
    this.#buffer[this.#at++] =
      TYPES.indexOf(entry.type) |
      (sameOwner ? 0 : HAS.owner) |
      (sameTimes ? 0 : HAS.otherTimes) |
      (wholeSeconds ? 0 : HAS.nanoseconds) |
      (isOnePiece(entry) ? HAS.content : 0) |
      (rare === 0 ? 0 : HAS.rare);
    const shared = sharedPrefix(path, this.#path);
    this.#number(shared);
    this.#text(shared === 0 ? path : path.slice(shared));
    if (!sameOwner) this.#owner(entry);
    this.#number(entry.size);
    this.#time(mtime, wholeSeconds);
    if (!sameTimes) {
      this.#time(atime, wholeSeconds);
      this.#time(ctime, wholeSeconds);
    }
    if (isOnePiece(entry)) {
      this.#number(entry.payloadBlock);
      this.#number(runs[0].blocks);
      this.#number(entry.dataOffset - this.#dataOffset);
      this.#dataOffset = entry.dataOffset;
    }
    if (rare !== 0) this.#rare(entry, rare);
    this.#path = path;
    this.#mayHide ||= hides;
    this.#count++;
  }

  #owner({ mode, uid, gid }: ScannedEntry): void {
    this.#number((this.#mode = mode));
    this.#number((this.#uid = uid));
    this.#number((this.#gid = gid));
  }

  #rare(entry: ScannedEntry, parts: number): void {
    this.#buffer[this.#at++] = parts;
    if (parts & RARE.link) this.#text(entry.link);
    if (parts & RARE.device) {
      this.#number(entry.major);
      this.#number(entry.minor);
    }
    if (parts & RARE.xattrs) this.#xattrs(entry.xattrs);
    if (!(parts & RARE.runs)) return;
    this.#number(entry.payloadBlock);
    this.#number(entry.runs.length);
    for (const { fileBlock, blocks } of entry.runs) {
      this.#number(fileBlock);
      this.#number(blocks);
    }
    this.#number(entry.dataOffset);
    this.#number(entry.extents.length);
    for (const { offset, length } of entry.extents) {
      this.#number(offset);
      this.#number(length);
    }
  }

  #xattrs(xattrs: ScannedEntry["xattrs"]): void {
    this.#number(xattrs.size);
    for (const [name, value] of xattrs) {
      this.#text(name);
      this.#number(value.length);
      this.#buffer.set(value, this.#at);
      this.#at += value.length;
    }
  }

  #number(value: number): void {
    let rest = value;
    for (; rest > 0x7fffffff; rest = Math.floor(rest / 128)) this.#buffer[this.#at++] = (rest % 128) | 0x80;
    for (; rest > 0x7f; rest >>>= 7) this.#buffer[this.#at++] = (rest & 0x7f) | 0x80;
    this.#buffer[this.#at++] = rest;
  }

  #text(value: ByteString): void {
    this.#number(value.length);
    for (let index = 0; index < value.length; index++) this.#buffer[this.#at++] = value.charCodeAt(index);
  }

  #time({ seconds, nanoseconds }: Timespec, wholeSeconds: boolean): void {
    // Most times are positive; the others do not have to be short.
    this.#number(seconds >= 0 && seconds < MAX_SHORT_SECONDS ? seconds + 1 : 0);
    if (!(seconds >= 0 && seconds < MAX_SHORT_SECONDS)) this.#at = this.#buffer.writeDoubleLE(seconds, this.#at);
    if (!wholeSeconds) this.#number(nanoseconds);
  }
}

/** Seconds below this are stored as a number, others as a double behind a zero. */
const MAX_SHORT_SECONDS = 2 ** 48;

const NO_XATTRS: ScannedEntry["xattrs"] = new Map();
const NO_RUNS: ScannedEntry["runs"] = [];
const NO_EXTENTS: ScannedEntry["extents"] = [];

class Reader {
  readonly #buffer: Buffer;
  #at = HEADER_BYTES;
  #path: ByteString = "";
  #dataOffset = 0;
  #mode = 0;
  #uid = 0;
  #gid = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  get more(): boolean {
    return this.#at < this.#buffer.length;
  }

  entry(): ScannedEntry {
    const head = this.#buffer[this.#at++];
    const path = this.#path.slice(0, this.#number()) + this.#text();
    this.#path = path;
    if (head & HAS.owner) {
      this.#mode = this.#number();
      this.#uid = this.#number();
      this.#gid = this.#number();
    }
    const size = this.#number();
    const mtime = this.#time(head);
    const atime = head & HAS.otherTimes ? this.#time(head) : mtime;
    const ctime = head & HAS.otherTimes ? this.#time(head) : mtime;
    let payloadBlock = 0;
    let dataOffset = 0;
    let runs = NO_RUNS;
    let extents = NO_EXTENTS;
    if (head & HAS.content) {
      payloadBlock = this.#number();
      runs = [{ fileBlock: 0, blocks: this.#number() }];
      dataOffset = this.#dataOffset += this.#number();
      extents = [{ offset: 0, length: size }];
    }
    const rare = head & HAS.rare ? this.#buffer[this.#at++] : 0;
    const link = rare & RARE.link ? this.#text() : "";
    const major = rare & RARE.device ? this.#number() : 0;
    const minor = rare & RARE.device ? this.#number() : 0;
    const xattrs = rare & RARE.xattrs ? this.#xattrs() : NO_XATTRS;
    if (rare & RARE.runs) {
      payloadBlock = this.#number();
      runs = Array.from({ length: this.#number() }, () => ({ fileBlock: this.#number(), blocks: this.#number() }));
      dataOffset = this.#number();
      extents = Array.from({ length: this.#number() }, () => ({ offset: this.#number(), length: this.#number() }));
    }
    return {
      path,
      type: TYPES[head & 7],
      mode: this.#mode,
      uid: this.#uid,
      gid: this.#gid,
      mtime,
      atime,
      ctime,
      size,
      link,
      major,
      minor,
      xattrs,
      extents,
      dataOffset,
      payloadBlock,
      runs,
    };
  }

  #number(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#buffer[this.#at++];
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    for (let scale = 2 ** 28; this.#at < this.#buffer.length; scale *= 128) {
      const byte = this.#buffer[this.#at++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new RangeError(`entry log: a number at ${this.#at} does not end`);
  }

  #text(): ByteString {
    const length = this.#number();
    this.#at += length;
    return this.#buffer.toString("latin1", this.#at - length, this.#at);
  }

  #xattrs(): ScannedEntry["xattrs"] {
    return new Map(
      Array.from({ length: this.#number() }, () => {
        const name = this.#text();
        const length = this.#number();
        this.#at += length;
        return [name, new Uint8Array(this.#buffer.subarray(this.#at - length, this.#at))] as const;
      }),
    );
  }

  #time(head: number): Timespec {
    let seconds = this.#number() - 1;
    if (seconds < 0) {
      seconds = this.#buffer.readDoubleLE(this.#at);
      this.#at += NUMBER_BYTES;
    }
    return { seconds, nanoseconds: head & HAS.nanoseconds ? this.#number() : 0 };
  }
}
