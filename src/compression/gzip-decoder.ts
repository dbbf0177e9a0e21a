import { crc32 } from "node:zlib";
import { corrupt, type LazyError } from "../errors.ts";
import { GzipHeader } from "./gzip-header.ts";
import { InflateKernel } from "./inflate-kernel.ts";
import { resumingPrefix } from "./resuming-prefix.ts";

/** What decoding needs to start in the middle of the data, at the header of a DEFLATE block. */
export interface ResumePoint {
  /** Of the stored data: the first byte of which no bit has been used. */
  readonly storedOffset: number;
  /** The highest bits of the byte before it, 0 to 7, that come first. */
  readonly bits: number;
  /** The content of the same member before it that the rest may refer to, at most 32 KiB. */
  readonly window: Uint8Array;
}

export interface AccessPoint extends ResumePoint {
  /** Of all content, over all members. */
  readonly contentOffset: number;
}

export interface AccessPointOptions {
  /** Bytes of content from one point to the next, at least; the first is where the content begins. */
  readonly span: number;
  /** Called as soon as the byte before the point has been pushed, before any other is. */
  readonly found: (point: AccessPoint) => void;
}

const TRAILER_BYTES = 8;
const FIRST_HEADER_BYTE = 0x1f;

/** "ignored" is what follows the content that was asked for. */
type Part = "header" | "data" | "trailer" | "after" | "padding" | "ignored";

/**
 * Decodes gzip (RFC 1952), pull by pull and without waiting for anything: all members, with their checksums; zeros after
 * the last one are padding. Throws `CORRUPT` with the position for data that is broken or that something else follows.
 *
 *     decoder.push(stored);
 *     for (let piece; (piece = decoder.next()) !== undefined;) use(piece);
 */
export class GzipDecoder {
  readonly #name: string;
  readonly #kernel: InflateKernel;
  readonly #points: AccessPointOptions | undefined;
  #part: Part = "header";
  #header = new GzipHeader();
  #stored = new Uint8Array(0);
  /** Of `stored`, what has been used. */
  #at = 0;
  /** Bytes before `stored`. */
  #storedBefore = 0;
  #storedEnd = 0;
  /** Bytes of content before the kernel's output. */
  #contentBefore = 0;
  #memberStart = 0;
  /** The checksums of a member are over all of it. */
  #hasMemberStart = true;
  #contentLimit = Infinity;
  #nextPoint: number;
  /** Of the kernel's output, what `next` has returned, and what is part of the checksum. */
  #returned = 0;
  #summed = 0;
  #crc = 0;
  #isFull = false;
  #isReleased = false;
  readonly #trailer = Buffer.alloc(TRAILER_BYTES);
  #trailerFilled = 0;

  /** @param name what to call the data in messages */
  constructor(name: string, points?: AccessPointOptions) {
    this.#name = name;
    this.#points = points;
    this.#nextPoint = points === undefined ? Infinity : 0;
    this.#kernel = InflateKernel.take();
  }

  /**
   * Starts at a point in the middle, with stored data that begins with the byte which has the point's bits, or at the point
   * when there are none. Offsets of content count from the point. What follows the first member that ends at
   * `contentLimit` or later is ignored.
   */
  static resume(name: string, point: ResumePoint, stored: Uint8Array, contentLimit: number): GzipDecoder {
    const decoder = new GzipDecoder(name);
    const prefix = resumingPrefix(point, stored[0]);
    decoder.#storedEnd = point.storedOffset - prefix.length;
    decoder.#contentBefore = -point.window.length;
    decoder.#contentLimit = contentLimit;
    decoder.#hasMemberStart = false;
    decoder.#part = "data";
    decoder.#kernel.begin();
    decoder.push(prefix);
    while (decoder.next() !== undefined);
    decoder.push(stored.subarray(point.bits === 0 ? 0 : 1));
    return decoder;
  }

  /** Takes the next stored bytes, which must not change before `next` has returned undefined; only then come others. */
  push(stored: Uint8Array): void {
    // Of the bytes before nothing may be left, not even their length.
    this.#storedBefore = this.#storedEnd;
    this.#storedEnd += stored.length;
    this.#stored = stored as Uint8Array<ArrayBuffer>;
    this.#at = 0;
    this.#kernel.push(stored);
  }

  /**
   * The next piece of content, never an empty one; undefined when all that was pushed has been used.
   * A piece is a view of the decoder's memory, valid until any next call of the decoder.
   */
  next(): Uint8Array | undefined {
    do {
      if (this.#isFull) this.#slide();
      while (!this.#isFull && this.#step());
      // Full with nothing new: what was pushed before had ended exactly where the room did.
    } while (this.#isFull && this.#kernel.outputBytes === this.#returned);
    const end = this.#kernel.outputBytes;
    if (end === this.#returned) return undefined;
    this.#sum();
    const piece = this.#kernel.output(this.#returned, end);
    this.#returned = end;
    return piece;
  }

  /** Ends the data: throws `CORRUPT` when it stops in the middle. */
  close(): void {
    this[Symbol.dispose]();
    if (this.#part === "after" || this.#part === "padding" || this.#part === "ignored") return;
    throw corrupt(`${this.#name}: the compressed data ends in the middle, past byte ${this.#position}; fetch it again`);
  }

  /** Gives the memory back, also without `close`; no more pieces can be asked for. */
  [Symbol.dispose](): void {
    if (!this.#isReleased) this.#kernel.release();
    this.#isReleased = true;
  }

  get #position(): number {
    return this.#storedBefore + this.#at;
  }

  get #contentOffset(): number {
    return this.#contentBefore + this.#kernel.outputBytes;
  }

  /** Goes on as far as one part of the format goes. False when more must be pushed first. */
  #step(): boolean {
    if (this.#part === "data") return this.#decode();
    if (this.#at === this.#stored.length) return false;
    if (this.#part === "header") this.#readHeader();
    else if (this.#part === "trailer") this.#readTrailer();
    else if (this.#part === "ignored") this.#at = this.#stored.length;
    else this.#readBetween();
    return true;
  }

  #readHeader(): void {
    while (this.#at < this.#stored.length && !this.#header.isComplete) {
      const failure = this.#header.take(this.#stored[this.#at]);
      if (failure !== undefined) throw this.#broken(failure);
      this.#at++;
    }
    if (!this.#header.isComplete) return;
    this.#kernel.begin();
    this.#crc = 0;
    this.#memberStart = this.#contentOffset;
    this.#hasMemberStart = true;
    this.#part = "data";
  }

  #decode(): boolean {
    const stop = this.#kernel.run(this.#at, this.#nextPoint - this.#contentBefore);
    this.#at = this.#kernel.readBytes;
    if (stop === "needs input") return false;
    if (stop === "output full") this.#isFull = true;
    else if (stop === "at a block") this.#addPoint();
    else if (stop === "done") this.#part = "trailer";
    else throw this.#broken(stop.failure);
    return true;
  }

  #addPoint(): void {
    const contentOffset = this.#contentOffset;
    const window = this.#kernel.history(contentOffset - this.#memberStart);
    this.#points!.found({ storedOffset: this.#position, bits: this.#kernel.unusedBits, contentOffset, window });
    this.#nextPoint = contentOffset + this.#points!.span;
  }

  #readTrailer(): void {
    const taken = this.#stored.subarray(this.#at, this.#at + TRAILER_BYTES - this.#trailerFilled);
    this.#trailer.set(taken, this.#trailerFilled);
    this.#trailerFilled += taken.length;
    this.#at += taken.length;
    if (this.#trailerFilled < TRAILER_BYTES) return;
    this.#sum();
    this.#trailerFilled = 0;
    if (this.#hasMemberStart) this.#checkTrailer();
    this.#part = this.#contentOffset >= this.#contentLimit ? "ignored" : "after";
  }

  #checkTrailer(): void {
    const [crc, length] = [this.#trailer.readUInt32LE(0), this.#trailer.readUInt32LE(4)];
    const memberBytes = this.#contentOffset - this.#memberStart;
    if (crc !== this.#crc) throw this.#broken(`incorrect data check: expected CRC-32 ${hex(crc)}, found ${hex(this.#crc)}`);
    if (length !== memberBytes % 2 ** 32) throw this.#broken(`incorrect length check: expected ${length} bytes, found ${memberBytes}`);
  }

  /** What follows a member: another one, or zeros up to the end. */
  #readBetween(): void {
    if (this.#part === "after" && this.#stored[this.#at] === FIRST_HEADER_BYTE) {
      this.#header = new GzipHeader();
      this.#part = "header";
      return;
    }
    this.#part = "padding";
    while (this.#at < this.#stored.length && this.#stored[this.#at] === 0) this.#at++;
    if (this.#at === this.#stored.length) return;
    throw corrupt(
      `${this.#name}: byte ${this.#position} comes after the end of the gzip data and is not zero; something else was appended`,
    );
  }

  /** Takes the output that is not yet part of the checksum into it. */
  #sum(): void {
    const end = this.#kernel.outputBytes;
    if (this.#hasMemberStart) this.#crc = crc32(this.#kernel.output(this.#summed, end), this.#crc);
    this.#summed = end;
  }

  #slide(): void {
    this.#contentBefore += this.#kernel.outputBytes;
    this.#kernel.slide();
    this.#returned = 0;
    this.#summed = 0;
    this.#isFull = false;
  }

  #broken(what: string): LazyError {
    return corrupt(`${this.#name}: the compressed data is broken (${what}), at byte ${this.#position}; fetch it again`);
  }
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
