import { corrupt, unsupported } from "../errors.ts";

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50; // the lowest four bits are the user's
export const MAX_WINDOW_LOG = 27;
const MAX_WINDOW_BYTES = 2 ** MAX_WINDOW_LOG;
const MAX_FIELD_BYTES = 1 + 4 + 8; // window, dictionary, content size
const DICTIONARY_ID_BYTES = [0, 1, 2, 4];
const CONTENT_SIZE_BYTES = [0, 2, 4, 8];
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

const FRAME_MAGIC_BYTES = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);

/** Where a frame with content lies in the stored data. */
export interface ZstdFrame {
  readonly storedStart: number;
  readonly storedEnd: number;
}

type Part = "magic" | "skippable size" | "skippable" | "descriptor" | "frame header" | "block header" | "block" | "checksum";

/**
 * Cuts a zstd stream where its frames end, by their headers alone (RFC 8878, sections 3.1.1 and 3.1.2). node:zlib
 * silently drops whatever follows a frame in the same write; of pieces that end where a frame ends nothing is lost.
 */
export class FrameCutter {
  readonly #name: string;
  #part: Part = "magic";
  /** Bytes of the part that are still to come. */
  #left = 4;
  #position = 0;
  #frameStart = 0;
  /** The part's bytes, as far as they are a field. */
  readonly #field = Buffer.alloc(MAX_FIELD_BYTES);
  #fieldFilled = 0;
  #descriptor = 0;
  #isLastBlock = false;

  constructor(name: string) {
    this.#name = name;
  }

  /** The bytes of a chunk that belong to frames with content, in pieces of which none reaches over the end of a frame. */
  *cut(chunk: Uint8Array): Generator<Uint8Array, void> {
    let start = 0;
    let at = 0;
    while (at < chunk.length) {
      at += this.#take(chunk, at);
      if (this.#left > 0) break;
      const wasInFrame = this.#isInFrame;
      while (this.#left === 0) this.#advance();
      if (wasInFrame && !this.#isInFrame) yield chunk.subarray(start, at);
      if (wasInFrame || !this.#isInFrame) continue;
      const isMagicInChunk = at >= FRAME_MAGIC_BYTES.length;
      if (!isMagicInChunk) yield FRAME_MAGIC_BYTES;
      start = isMagicInChunk ? at - FRAME_MAGIC_BYTES.length : at;
    }
    if (this.#isInFrame && start < at) yield chunk.subarray(start, at);
  }

  /** The frame that the piece which `cut` gave last is the end of, if it is one. */
  get endedFrame(): ZstdFrame | undefined {
    return this.#isInFrame ? undefined : { storedStart: this.#frameStart, storedEnd: this.#position };
  }

  /** Throws `CORRUPT` unless the stream ended with a frame. */
  close(): void {
    if (this.#part !== "magic" || this.#fieldFilled > 0) {
      throw corrupt(`${this.#name}: the zstd data ends in the middle (${this.#part}), after ${this.#position} bytes; fetch it again`);
    }
  }

  get #isInFrame(): boolean {
    return this.#part !== "magic" && this.#part !== "skippable size" && this.#part !== "skippable";
  }

  #take(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.#left, chunk.length - at);
    if (this.#part !== "block" && this.#part !== "skippable" && this.#part !== "checksum") {
      this.#field.set(chunk.subarray(at, at + taken), this.#fieldFilled);
      this.#fieldFilled += taken;
    }
    this.#left -= taken;
    this.#position += taken;
    return taken;
  }

  #begin(part: Part, length: number): void {
    this.#part = part;
    this.#left = length;
    this.#fieldFilled = 0;
  }

  /** Goes on to the part that follows the one just read. */
  #advance(): void {
    switch (this.#part) {
      case "magic":
        return this.#useMagic(this.#field.readUInt32LE(0));
      case "skippable size":
        return this.#begin("skippable", this.#field.readUInt32LE(0));
      case "descriptor":
        this.#descriptor = this.#field[0]!;
        return this.#begin("frame header", this.#windowBytes + this.#dictionaryIdBytes + this.#contentSizeBytes);
      case "frame header":
        this.#checkFrameHeader();
        return this.#begin("block header", 3);
      case "block header":
        return this.#useBlockHeader(this.#field.readUIntLE(0, 3));
      case "block":
        if (!this.#isLastBlock) return this.#begin("block header", 3);
        return this.#hasChecksum ? this.#begin("checksum", 4) : this.#begin("magic", 4);
      case "skippable":
      case "checksum":
        return this.#begin("magic", 4);
    }
  }

  #useMagic(magic: number): void {
    if (magic === FRAME_MAGIC) {
      this.#frameStart = this.#position - 4;
      return this.#begin("descriptor", 1);
    }
    if ((magic & ~0xf) === SKIPPABLE_MAGIC) return this.#begin("skippable size", 4);
    const found = magic.toString(16).padStart(8, "0");
    throw corrupt(
      `${this.#name}: no zstd frame starts at byte ${this.#position - 4} (magic ${found}); the data is broken or something was appended`,
    );
  }

  #useBlockHeader(header: number): void {
    const type = (header >> 1) & 3;
    this.#isLastBlock = (header & 1) === 1;
    if (type === RESERVED_BLOCK)
      throw corrupt(`${this.#name}: zstd block at byte ${this.#position - 3} has the reserved type; fetch it again`);
    this.#begin("block", type === RLE_BLOCK ? 1 : header >> 3);
  }

  get #isSingleSegment(): boolean {
    return (this.#descriptor & 0x20) !== 0;
  }

  get #hasChecksum(): boolean {
    return (this.#descriptor & 0x04) !== 0;
  }

  get #windowBytes(): number {
    return this.#isSingleSegment ? 0 : 1;
  }

  get #dictionaryIdBytes(): number {
    return DICTIONARY_ID_BYTES[this.#descriptor & 3];
  }

  get #contentSizeBytes(): number {
    const flag = this.#descriptor >> 6;
    return flag === 0 ? (this.#isSingleSegment ? 1 : 0) : CONTENT_SIZE_BYTES[flag];
  }

  #checkFrameHeader(): void {
    const dictionaryAt = this.#windowBytes;
    const contentAt = dictionaryAt + this.#dictionaryIdBytes;
    if (this.#field.subarray(dictionaryAt, contentAt).some((byte) => byte !== 0)) {
      throw unsupported(
        `${this.#name}: the zstd frame before byte ${this.#position} was compressed with a dictionary, which is not at hand`,
      );
    }
    const window = this.#isSingleSegment
      ? littleEndian(this.#field.subarray(contentAt, contentAt + this.#contentSizeBytes))
      : windowSize(this.#field[0]);
    if (window > MAX_WINDOW_BYTES) {
      throw unsupported(
        `${this.#name}: the zstd frame before byte ${this.#position} needs a window of ${window} bytes, at most ${MAX_WINDOW_BYTES} are allowed; compress it without --long or --ultra`,
      );
    }
  }
}

function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function littleEndian(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}
