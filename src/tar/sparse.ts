import { corrupt, unsupported } from "../errors.ts";
import type { ByteString, DataExtent } from "../tree/entry.ts";
import { BLOCK_BYTES } from "./header.ts";
import { parseNumber } from "./number-field.ts";
import { parseDecimal, paxNumber, paxText, type PaxRecords } from "./pax.ts";

const MAX_EXTENTS = 1_000_000;
const MAX_DIGITS = 20;

/** The pairs of a GNU sparse header (type `S`): in the header itself, and in each extension block after it. */
const HEADER_PAIRS = { offset: 386, count: 4, continued: 482 };
const EXTENSION_PAIRS = { offset: 0, count: 21, continued: 504 };
const PAIR_BYTES = 12 + 12;
const REAL_SIZE_OFFSET = 483;

/** Collects the data extents of one sparse file and checks them against its size. */
export class SparseMap {
  readonly #size: number;
  readonly #extents: { offset: number; length: number }[] = [];
  #end = 0;
  #storedBytes = 0;

  /** @param size the size of the file, holes included */
  constructor(size: number) {
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  /** Adds the next extent; an empty one only marks where a hole ends. */
  add(offset: number, length: number): void {
    if (offset < this.#end || length < 0)
      throw corrupt(`sparse map has [${offset}, +${length}) after [.., ${this.#end}), expected ascending extents`);
    if (length > this.#size - offset) throw corrupt(`sparse map has [${offset}, +${length}) in a file of ${this.#size} bytes`);
    if (length === 0) return;
    const last = this.#extents.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else this.#extents.push({ offset, length });
    if (this.#extents.length > MAX_EXTENTS) throw unsupported(`sparse map has more than ${MAX_EXTENTS} extents`);
    this.#end = offset + length;
    this.#storedBytes += length;
  }

  /** The extents, whose lengths have to add up to what the archive stores. */
  close(storedBytes: number): readonly DataExtent[] {
    if (this.#storedBytes !== storedBytes) {
      throw corrupt(`sparse map describes ${this.#storedBytes} bytes of data, the archive stores ${storedBytes}`);
    }
    return this.#extents;
  }
}

/** The map that starts in a GNU sparse header, and whether extension blocks follow. */
export function parseSparseHeader(block: Uint8Array, offset: number): { map: SparseMap; isContinued: boolean } {
  const size = parseNumber(block, offset + REAL_SIZE_OFFSET, 12, "real size of the sparse file");
  if (size < 0) throw corrupt(`real size of the sparse file is ${size}`);
  const map = new SparseMap(size);
  return { map, isContinued: addPairs(map, block, offset, HEADER_PAIRS) };
}

/** Adds the pairs of an extension block; says whether another one follows. */
export function parseSparseExtension(map: SparseMap, block: Uint8Array, offset: number): boolean {
  return addPairs(map, block, offset, EXTENSION_PAIRS);
}

function addPairs(map: SparseMap, block: Uint8Array, offset: number, pairs: typeof HEADER_PAIRS): boolean {
  for (let pair = 0; pair < pairs.count; pair++) {
    const at = offset + pairs.offset + pair * PAIR_BYTES;
    if (block[at + 12] === 0) break; // an unused pair: even a length of zero is written as digits
    map.add(parseNumber(block, at, 12, "sparse offset"), parseNumber(block, at + 12, 12, "sparse length"));
  }
  return block[offset + pairs.continued] !== 0;
}

/**
 * What PAX records say about the holes of a file: its map (formats 0.0 and 0.1), a reader for the map in front of its
 * data (format 1.0), or undefined for a file without holes. Throws `UNSUPPORTED` for later formats.
 */
export function paxSparseMap(records: PaxRecords): SparseMap | SparseMapLines | undefined {
  const major = paxNumber(records, "GNU.sparse.major") ?? 0;
  const minor = paxNumber(records, "GNU.sparse.minor") ?? 0;
  if (major === 1 && minor === 0) return new SparseMapLines(requiredNumber(records, "GNU.sparse.realsize"));
  if (major !== 0 || minor > 1) throw unsupported(`sparse format ${major}.${minor} is unknown; 0.0, 0.1 and 1.0 are read`);
  const text = paxText(records, "GNU.sparse.map");
  if (text === undefined && !records.has("GNU.sparse.size")) return undefined;
  return parseSparseRecord(text ?? "", requiredNumber(records, "GNU.sparse.size"));
}

function requiredNumber(records: PaxRecords, key: ByteString): number {
  const value = paxNumber(records, key);
  if (value === undefined) throw corrupt(`sparse file without ${key}`);
  return value;
}

/** `offset,length,offset,length…` */
function parseSparseRecord(text: ByteString, size: number): SparseMap {
  const map = new SparseMap(size);
  const numbers = text === "" ? [] : text.split(",");
  if (numbers.length % 2 !== 0) throw corrupt(`GNU.sparse.map has ${numbers.length} numbers, expected pairs`);
  for (let at = 0; at < numbers.length; at += 2) {
    map.add(parseDecimal(numbers[at], "sparse offset"), parseDecimal(numbers[at + 1], "sparse length"));
  }
  return map;
}

/** The map of the PAX sparse format 1.0: decimal numbers on lines of their own, in blocks before the data. */
export class SparseMapLines {
  readonly map: SparseMap;
  #line = "";
  #remaining: number | undefined;
  #offset: number | undefined;

  constructor(size: number) {
    this.map = new SparseMap(size);
  }

  /** Reads one block; true when the map ends in it. */
  addBlock(bytes: Buffer, offset: number): boolean {
    const lines = (this.#line + bytes.toString("latin1", offset, offset + BLOCK_BYTES)).split("\n");
    this.#line = "";
    for (let at = 0; at < lines.length - 1; at++) {
      this.#addNumber(parseDecimal(lines[at], "number in the sparse map"));
      if (this.#remaining === 0) return true;
    }
    this.#line = lines.at(-1)!;
    if (this.#line.length > MAX_DIGITS) throw corrupt("sparse map at the start of the data has no numbers in it");
    return false;
  }

  #addNumber(value: number): void {
    if (this.#remaining === undefined) {
      if (value > MAX_EXTENTS) throw unsupported(`sparse map has ${value} extents, at most ${MAX_EXTENTS} are read`);
      this.#remaining = value;
    } else if (this.#offset === undefined) {
      this.#offset = value;
    } else {
      this.map.add(this.#offset, value);
      this.#offset = undefined;
      this.#remaining--;
    }
  }
}
