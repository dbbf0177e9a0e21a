import type { PayloadEntry } from "../formats/ext4/ext4-writer.ts";
import type { ByteString, EntryType, Timespec } from "../tree/entry.ts";

const TYPES: readonly EntryType[] = ["file", "directory", "symlink", "hardlink", "character", "block", "fifo"];
const CHUNK_BYTES = 1 << 20;
/** Room for everything in an entry but strings, attributes and runs: at most 16 numbers of 8 bytes. */
const FIXED_BYTES = 128;
const NUMBER_BYTES = 8;

/** Which of an entry's optional parts follow. */
const HAS = { otherTimes: 1, link: 2, device: 4, xattrs: 8, runs: 16 } as const;

/**
 * A layer's entries, packed: a million of them take some 60 MB instead of ten times that as objects. Appended once, then gone
 * through any number of times; each round makes its objects anew.
 */
export class EntryLog implements Iterable<PayloadEntry> {
  readonly #chunks: Buffer<ArrayBuffer>[] = [];
  #chunk: Buffer<ArrayBuffer> = Buffer.alloc(0);
  #used = 0;
  #count = 0;
  #lastPath: ByteString = "";

  get count(): number {
    return this.#count;
  }

  /** The log whose `chunks` these are. */
  static from(chunks: readonly Uint8Array<ArrayBuffer>[]): EntryLog {
    const log = new EntryLog();
    for (const { buffer, byteOffset, byteLength } of chunks) log.#chunks.push(Buffer.from(buffer, byteOffset, byteLength));
    return log;
  }

  append(entry: PayloadEntry): void {
    const shared = sharedPrefix(entry.path, this.#lastPath);
    const writer = this.#writer(sizeBound(entry));
    writer.number(TYPES.indexOf(entry.type));
    writer.number(flagsOf(entry));
    writer.number(shared);
    writer.text(entry.path.slice(shared));
    for (const value of [entry.mode, entry.uid, entry.gid, entry.size]) writer.number(value);
    writer.time(entry.mtime);
    this.#appendOptional(writer, entry);
    this.#used = writer.at;
    this.#lastPath = entry.path;
    this.#count++;
  }

  #appendOptional(writer: Writer, entry: PayloadEntry): void {
    const flags = flagsOf(entry);
    if (flags & HAS.otherTimes) {
      writer.time(entry.atime);
      writer.time(entry.ctime);
    }
    if (flags & HAS.link) writer.text(entry.link);
    if (flags & HAS.device) {
      writer.number(entry.major);
      writer.number(entry.minor);
    }
    if (flags & HAS.xattrs) {
      writer.number(entry.xattrs.size);
      for (const [name, value] of entry.xattrs) {
        writer.text(name);
        writer.bytes(value);
      }
    }
    if (!(flags & HAS.runs)) return;
    writer.number(entry.payloadBlock);
    writer.number(entry.runs.length);
    for (const { fileBlock, blocks } of entry.runs) {
      writer.number(fileBlock);
      writer.number(blocks);
    }
  }

  /** What was appended, to be handed to another thread. Nothing more can be appended to this log. */
  chunks(): Buffer<ArrayBuffer>[] {
    const chunks = [...this.#chunks, this.#chunk.subarray(0, this.#used)];
    return chunks.filter((chunk) => chunk.length > 0);
  }

  *[Symbol.iterator](): Generator<PayloadEntry, void> {
    let path: ByteString = "";
    for (const chunk of this.chunks()) {
      for (const reader = new Reader(chunk); reader.at < chunk.length;) {
        const entry = readEntry(reader, path);
        path = entry.path;
        yield entry;
      }
    }
  }

  /** A place for an entry of up to that many bytes. */
  #writer(bytes: number): Writer {
    if (this.#used + bytes > this.#chunk.length) {
      if (this.#used > 0) this.#chunks.push(this.#chunk.subarray(0, this.#used));
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, bytes));
      this.#used = 0;
    }
    return new Writer(this.#chunk, this.#used);
  }
}

function flagsOf(entry: PayloadEntry): number {
  const sameTimes = sameTime(entry.atime, entry.mtime) && sameTime(entry.ctime, entry.mtime);
  return (
    (sameTimes ? 0 : HAS.otherTimes) |
    (entry.link === "" ? 0 : HAS.link) |
    (entry.major === 0 && entry.minor === 0 ? 0 : HAS.device) |
    (entry.xattrs.size === 0 ? 0 : HAS.xattrs) |
    (entry.runs.length === 0 ? 0 : HAS.runs)
  );
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

function sizeBound(entry: PayloadEntry): number {
  let bytes = FIXED_BYTES + entry.path.length + entry.link.length + entry.runs.length * 2 * NUMBER_BYTES;
  for (const [name, value] of entry.xattrs) bytes += name.length + value.length + 2 * NUMBER_BYTES;
  return bytes;
}

const NO_XATTRS: PayloadEntry["xattrs"] = new Map();
const NO_RUNS: PayloadEntry["runs"] = [];

function readEntry(reader: Reader, lastPath: ByteString): PayloadEntry {
  const type = TYPES[reader.number()];
  const flags = reader.number();
  const path = lastPath.slice(0, reader.number()) + reader.text();
  const [mode, uid, gid, size] = [reader.number(), reader.number(), reader.number(), reader.number()];
  const mtime = reader.time();
  const atime = flags & HAS.otherTimes ? reader.time() : mtime;
  const ctime = flags & HAS.otherTimes ? reader.time() : mtime;
  const link = flags & HAS.link ? reader.text() : "";
  const major = flags & HAS.device ? reader.number() : 0;
  const minor = flags & HAS.device ? reader.number() : 0;
  const xattrs = flags & HAS.xattrs ? readXattrs(reader) : NO_XATTRS;
  const payloadBlock = flags & HAS.runs ? reader.number() : 0;
  const runs = flags & HAS.runs ? readRuns(reader) : NO_RUNS;
  return { path, type, mode, uid, gid, mtime, atime, ctime, size, link, major, minor, xattrs, extents: [], payloadBlock, runs };
}

function readXattrs(reader: Reader): PayloadEntry["xattrs"] {
  return new Map(Array.from({ length: reader.number() }, () => [reader.text(), reader.bytes()] as const));
}

function readRuns(reader: Reader): PayloadEntry["runs"] {
  return Array.from({ length: reader.number() }, () => ({ fileBlock: reader.number(), blocks: reader.number() }));
}

/** Whole numbers below 2^53 in groups of 7 bits, the lowest first; the high bit says that more follow. */
class Writer {
  readonly #buffer: Buffer;
  at: number;

  constructor(buffer: Buffer, at: number) {
    this.#buffer = buffer;
    this.at = at;
  }

  number(value: number): void {
    let rest = value;
    for (; rest > 0x7fffffff; rest = Math.floor(rest / 128)) this.#buffer[this.at++] = (rest % 128) | 0x80;
    for (; rest > 0x7f; rest >>>= 7) this.#buffer[this.at++] = (rest & 0x7f) | 0x80;
    this.#buffer[this.at++] = rest;
  }

  text(value: ByteString): void {
    this.number(value.length);
    this.at += this.#buffer.write(value, this.at, "latin1");
  }

  bytes(value: Uint8Array): void {
    this.number(value.length);
    this.#buffer.set(value, this.at);
    this.at += value.length;
  }

  time({ seconds, nanoseconds }: Timespec): void {
    this.at = this.#buffer.writeDoubleLE(seconds, this.at);
    this.number(nanoseconds);
  }
}

class Reader {
  readonly #buffer: Buffer;
  at = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  number(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.#buffer[this.at++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
  }

  text(): ByteString {
    const length = this.number();
    this.at += length;
    return this.#buffer.toString("latin1", this.at - length, this.at);
  }

  bytes(): Uint8Array {
    const length = this.number();
    this.at += length;
    return new Uint8Array(this.#buffer.subarray(this.at - length, this.at));
  }

  time(): Timespec {
    const seconds = this.#buffer.readDoubleLE(this.at);
    this.at += NUMBER_BYTES;
    return { seconds, nanoseconds: this.number() };
  }
}
