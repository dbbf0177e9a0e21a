import { corrupt, LazyError } from "../errors.ts";
import type { DataExtent } from "../tree/entry.ts";
import { ExtendedHeaders } from "./extended-headers.ts";
import { BLOCK_BYTES, parseHeader, type TarHeader } from "./header.ts";
import { parseSparseExtension, parseSparseHeader, paxSparseMap, SparseMapLines, type SparseMap } from "./sparse.ts";
import { entryOf, parseMember, storedSize, type Member, type TarEntry } from "./tar-entry.ts";

/** Receives an archive front to back: `entry`, its `data` in any number of pieces, `entryEnd`, then the next entry. */
export interface TarVisitor {
  entry(entry: TarEntry): void;
  /** Stored data of the current entry; the extents of a sparse file follow each other. Valid during the call only. */
  data(bytes: Uint8Array): void;
  /** Comes after the last byte of data, also for entries without any. */
  entryEnd(): void;
}

type State = "header" | "extended" | "sparse extension" | "sparse map" | "data" | "skip" | "end";

/** A member whose sparse map has not been read to its end. */
interface SparseMember {
  readonly member: Member;
  readonly headerOffset: number;
  readonly map: SparseMap;
  readonly lines: SparseMapLines | undefined;
  storedBytes: number;
}

const NO_EXTENTS: readonly DataExtent[] = [];

/**
 * Reads a tar archive as its bytes arrive: v7, ustar, PAX, GNU and star headers, and the sparse files of GNU.
 * Nothing but headers is buffered. The formats are those of POSIX pax and of the GNU tar manual.
 * `write` and `close` throw `CORRUPT` for a broken archive and `UNSUPPORTED` for what no Linux file tree can hold; the
 * message has the name of the archive and the offset. After an error the reader is not to be used again.
 */
export class TarReader {
  readonly #visitor: TarVisitor;
  readonly #name: string;
  readonly #extended = new ExtendedHeaders();
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #state: State = "header";
  #position = 0;
  #blockFilled = 0;
  #zeroBlocks = 0;
  #sparse: SparseMember | undefined;
  #dataLeft = 0;
  #skipLeft = 0;

  /** @param name what to call the archive in messages: a path, a digest, `layer 3` */
  constructor(visitor: TarVisitor, name: string) {
    this.#visitor = visitor;
    this.#name = name;
  }

  /** Bytes written so far, those after the end of the archive included. */
  get position(): number {
    return this.#position;
  }

  /** Takes the next bytes. They are used during the call only. */
  write(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let at = 0; at < bytes.length;) at += this.#take(bytes, at);
  }

  /**
   * Passes over those of the next `available` bytes that are data, padding or behind the end, and returns how many they are. The
   * visitor gets no `data` for them. For archives that can be read anywhere: what is left is headers.
   */
  skip(available: number): number {
    const start = this.#position;
    if (this.#state === "data") this.#passData(Math.min(this.#dataLeft, available));
    const left = available - (this.#position - start);
    if (this.#state === "skip") this.#passSkipped(Math.min(this.#skipLeft, left));
    else if (this.#state === "end") this.#position += left;
    return this.#position - start;
  }

  /** Ends the archive; throws `CORRUPT` when it stops anywhere but at the end of a member. */
  close(): void {
    const isBetweenMembers = this.#blockFilled === 0 && (this.#state === "header" || this.#state === "end");
    if (!isBetweenMembers || this.#extended.isPending) {
      throw corrupt(`${this.#name}: the tar archive stops in the middle, after ${this.#position} bytes; fetch or build it again`);
    }
  }

  #take(bytes: Buffer, at: number): number {
    switch (this.#state) {
      case "data":
        return this.#takeData(bytes, at);
      case "skip":
        return this.#takeSkipped(bytes, at);
      case "extended":
        return this.#takeExtended(bytes, at);
      case "end":
        this.#position += bytes.length - at;
        return bytes.length - at;
      default:
        return this.#takeBlock(bytes, at);
    }
  }

  #takeData(bytes: Buffer, at: number): number {
    const taken = Math.min(this.#dataLeft, bytes.length - at);
    this.#visitor.data(bytes.subarray(at, at + taken));
    this.#passData(taken);
    return taken;
  }

  #passData(length: number): void {
    this.#dataLeft -= length;
    this.#position += length;
    if (this.#dataLeft === 0) this.#endEntry(0);
  }

  #endEntry(ignoredBytes: number): void {
    this.#visitor.entryEnd();
    this.#skip(ignoredBytes);
  }

  /** Passes over `length` bytes and the padding up to the next block. */
  #skip(length: number): void {
    const overhang = (this.#position + length) % BLOCK_BYTES;
    this.#skipLeft = overhang === 0 ? length : length + BLOCK_BYTES - overhang;
    this.#state = this.#skipLeft > 0 ? "skip" : "header";
  }

  #takeSkipped(bytes: Buffer, at: number): number {
    const taken = Math.min(this.#skipLeft, bytes.length - at);
    this.#passSkipped(taken);
    return taken;
  }

  #passSkipped(length: number): void {
    this.#skipLeft -= length;
    this.#position += length;
    if (this.#skipLeft === 0) this.#state = "header";
  }

  #takeExtended(bytes: Buffer, at: number): number {
    const taken = this.#extended.addBody(bytes, at);
    this.#position += taken;
    if (this.#extended.bodyBytesLeft === 0) this.#endExtended();
    return taken;
  }

  #endExtended(): void {
    try {
      this.#extended.endBody();
    } catch (error) {
      throw this.#located(error, "extended header that ends at", this.#position);
    }
    this.#skip(0);
  }

  /** Uses a block in place when it is whole, else puts its pieces together first. */
  #takeBlock(bytes: Buffer, at: number): number {
    if (this.#blockFilled === 0 && bytes.length - at >= BLOCK_BYTES) {
      this.#position += BLOCK_BYTES;
      this.#useBlock(bytes, at);
      return BLOCK_BYTES;
    }
    const taken = Math.min(BLOCK_BYTES - this.#blockFilled, bytes.length - at);
    bytes.copy(this.#block, this.#blockFilled, at, at + taken);
    this.#blockFilled += taken;
    this.#position += taken;
    if (this.#blockFilled === BLOCK_BYTES) {
      this.#blockFilled = 0;
      this.#useBlock(this.#block, 0);
    }
    return taken;
  }

  #useBlock(bytes: Buffer, at: number): void {
    const offset = this.#position - BLOCK_BYTES;
    let entry: TarEntry | undefined;
    try {
      entry = this.#sparse === undefined ? this.#parseHeaderBlock(bytes, at, offset) : this.#parseMapBlock(this.#sparse, bytes, at);
    } catch (error) {
      throw this.#located(error, "header at", offset);
    }
    if (entry !== undefined) this.#beginEntry(entry);
    else if (this.#state === "extended" && this.#extended.bodyBytesLeft === 0) this.#endExtended();
  }

  #beginEntry(entry: TarEntry): void {
    this.#visitor.entry(entry);
    if (entry.type === "hardlink") {
      this.#endEntry(entry.storedBytes); // the file that it links to has the same data
    } else if (entry.storedBytes === 0) {
      this.#endEntry(0);
    } else {
      this.#dataLeft = entry.storedBytes;
      this.#state = "data";
    }
  }

  /** Returns the entry unless more has to be read for it, or the block was something else. */
  #parseHeaderBlock(bytes: Buffer, at: number, offset: number): TarEntry | undefined {
    const header = parseHeader(bytes, at);
    if (header === undefined) return this.#useZeroBlock();
    if (this.#zeroBlocks > 0) throw corrupt("it follows a lone block of zeros; two of them end an archive, none may come earlier");
    if (ExtendedHeaders.isExtension(header.typeflag)) {
      this.#extended.begin(header.typeflag, header.size);
      this.#state = "extended";
      return undefined;
    }
    return this.#parseMemberHeader(header, bytes, at, offset);
  }

  #useZeroBlock(): undefined {
    if (this.#extended.isPending) throw corrupt("the member that the extended header before it describes is missing");
    this.#zeroBlocks++;
    if (this.#zeroBlocks === 2) this.#state = "end";
  }

  #parseMemberHeader(header: TarHeader, bytes: Buffer, at: number, headerOffset: number): TarEntry | undefined {
    const { records, long } = this.#extended.take();
    const member = parseMember(header, records, long);
    const storedBytes = storedSize(header, records, member.type);
    if (!Number.isSafeInteger(this.#position + storedBytes)) throw corrupt(`size is ${storedBytes}, which ends beyond 2^53`);
    if (header.typeflag === "S") {
      const { map, isContinued } = parseSparseHeader(bytes, at);
      const sparse = { member, headerOffset, map, lines: undefined, storedBytes };
      return isContinued ? this.#readMap(sparse, "sparse extension") : this.#sparseEntry(sparse);
    }
    const described = member.type === "file" ? paxSparseMap(records) : undefined;
    if (described instanceof SparseMapLines) {
      return this.#readMap({ member, headerOffset, map: described.map, lines: described, storedBytes }, "sparse map");
    }
    if (described !== undefined) return this.#sparseEntry({ member, headerOffset, map: described, lines: undefined, storedBytes });
    const extents = member.type === "file" && storedBytes > 0 ? [{ offset: 0, length: storedBytes }] : NO_EXTENTS;
    const size = member.type === "file" ? storedBytes : 0;
    return entryOf(member, { size, extents, headerOffset, dataOffset: this.#position, storedBytes });
  }

  #readMap(sparse: SparseMember, state: "sparse extension" | "sparse map"): undefined {
    this.#sparse = sparse;
    this.#state = state;
  }

  #parseMapBlock(sparse: SparseMember, bytes: Buffer, at: number): TarEntry | undefined {
    if (sparse.lines === undefined) return parseSparseExtension(sparse.map, bytes, at) ? undefined : this.#sparseEntry(sparse);
    sparse.storedBytes -= BLOCK_BYTES;
    if (sparse.storedBytes < 0) throw corrupt("sparse map is longer than the data that it stands in front of");
    return sparse.lines.addBlock(bytes, at) ? this.#sparseEntry(sparse) : undefined;
  }

  #sparseEntry(sparse: SparseMember): TarEntry {
    const { member, headerOffset, map, storedBytes } = sparse;
    this.#sparse = undefined;
    const extents = map.close(storedBytes);
    return entryOf(member, { size: map.size, extents, headerOffset, dataOffset: this.#position, storedBytes });
  }

  #located(error: unknown, what: string, offset: number): unknown {
    if (!(error instanceof LazyError)) return error;
    const doubt =
      offset === 0 && error.code === "CORRUPT"
        ? "; this may be no tar archive at all, or one in a compression other than gzip and zstd"
        : "";
    return new LazyError(error.code, `${this.#name}: tar ${what} ${offset}: ${error.message}${doubt}`, { cause: error });
  }
}
