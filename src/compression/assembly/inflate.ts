/*
 * DEFLATE (RFC 1951), resumable: input and output are windows in this module's memory, and decoding stops and goes on
 * at any byte of either. The caller owns the pointers: it puts input at `inputAt`..`inputEnd`, reads output behind
 * `OUTPUT_START`, and before it moves `outputAt` back keeps 32 KiB of what was decoded in front of it.
 *
 * Codes are decoded by one lookup of the next 11 (literals and lengths) or 9 bits (distances), longer ones by a second.
 * Table entries are u32:
 *
 *   bits 0-5    bits to drop: the code's and the extra ones
 *   bits 8-11   bits of the code alone
 *   bits 12-15  flags of entries that are no length or distance
 *   bits 16-30  literal, base length, base distance, or a further table's place in bytes from the table's start
 *   bit 31      a literal (in the literal table); a flag is set (in the distance table)
 */

// What `inflate` returns. Negative: the data is broken.
const NEEDS_INPUT: i32 = 0;
const OUTPUT_FULL: i32 = 1;
const AT_BLOCK: i32 = 2;
const DONE: i32 = 3;
/** Only inside: nothing is missing. */
const GO_ON: i32 = 4;
const BAD_BLOCK_TYPE: i32 = -1;
const BAD_STORED_LENGTH: i32 = -2;
const BAD_CODE_COUNT: i32 = -3;
const BAD_CODE_LENGTHS: i32 = -4;
const BAD_LITERAL_CODES: i32 = -5;
const BAD_DISTANCE_CODES: i32 = -6;
const BAD_SYMBOL: i32 = -7;
const BAD_DISTANCE: i32 = -8;
const TOO_FAR_BACK: i32 = -9;

// What comes next in the data.
const BLOCK: i32 = 0;
const STORED_SIZE: i32 = 1;
const STORED_BYTES: i32 = 2;
const CODE_COUNTS: i32 = 3;
const LENGTH_CODES: i32 = 4;
const CODE_LENGTHS: i32 = 5;
const SYMBOL: i32 = 6;
const MATCH: i32 = 7;
const END: i32 = 8;

const LITERAL: u32 = 1 << 31;
const SPECIAL: u32 = 1 << 15;
const FURTHER_TABLE: u32 = 1 << 14;
const END_OF_BLOCK: u32 = 1 << 13;
const DISTANCE_SPECIAL: u32 = 1 << 31;

const LITERAL_SYMBOLS: u32 = 288;
const DISTANCE_SYMBOLS: u32 = 32;
const LENGTH_SYMBOLS: u32 = 19;
const MAX_CODE_BITS: u32 = 15;
const LITERAL_ROOT_BITS: u32 = 11;
const DISTANCE_ROOT_BITS: u32 = 9;
const LENGTH_ROOT_BITS: u32 = 7;
const LITERAL_ROOT_MASK: u32 = (1 << LITERAL_ROOT_BITS) - 1;
const DISTANCE_ROOT_MASK: u32 = (1 << DISTANCE_ROOT_BITS) - 1;
const LENGTH_ROOT_MASK: u32 = (1 << LENGTH_ROOT_BITS) - 1;
// Every further table holds at least two symbols, because codes that are longer than one bit are complete.
const LITERAL_ENTRIES: usize = (1 << LITERAL_ROOT_BITS) + ((LITERAL_SYMBOLS / 2) << (MAX_CODE_BITS - LITERAL_ROOT_BITS));
const DISTANCE_ENTRIES: usize = (1 << DISTANCE_ROOT_BITS) + ((DISTANCE_SYMBOLS / 2) << (MAX_CODE_BITS - DISTANCE_ROOT_BITS));
const LENGTH_ENTRIES: usize = 1 << LENGTH_ROOT_BITS;

const MAX_MATCH_BYTES: usize = 258;
const WORD_BYTES: usize = 16;

// Memory. What the compiler itself puts there (LENGTH_ORDER) lies below 2 KiB; all tables end below 28 KiB.
const LITERAL_MODELS: usize = 2048; // what a symbol's entry is without its code
const DISTANCE_MODELS: usize = LITERAL_MODELS + LITERAL_SYMBOLS * 4;
const LENGTH_MODELS: usize = DISTANCE_MODELS + DISTANCE_SYMBOLS * 4;
const PATTERNS: usize = LENGTH_MODELS + 80; // for each distance below 16: which byte of a period is where in a word
const STEPS: usize = PATTERNS + 16 * WORD_BYTES; // and how many bytes of a word are whole periods
const SYMBOL_LENGTHS: usize = STEPS + 16;
const LENGTH_LENGTHS: usize = SYMBOL_LENGTHS + LITERAL_SYMBOLS + DISTANCE_SYMBOLS;
const COUNTS: usize = LENGTH_LENGTHS + 32; // u16 for each code length
const OFFSETS: usize = COUNTS + 32;
const SORTED: usize = OFFSETS + 32; // u16 for each symbol
const LENGTH_TABLE: usize = SORTED + LITERAL_SYMBOLS * 2;
const DISTANCE_TABLE: usize = LENGTH_TABLE + LENGTH_ENTRIES * 4;
const LITERAL_TABLE: usize = DISTANCE_TABLE + DISTANCE_ENTRIES * 4;

const KIB: usize = 1024;
/** Where input goes, up to INPUT_LIMIT. */
export const INPUT_START: usize = 32 * KIB;
export const INPUT_LIMIT: usize = 96 * KIB;
const HISTORY_BYTES: usize = 32 * KIB;
const HISTORY_START: usize = 100 * KIB;
/** Where output goes, behind what was decoded before it. */
export const OUTPUT_START: usize = HISTORY_START + HISTORY_BYTES;
/** Where output ends; up to 16 bytes behind it may be written too. */
export const OUTPUT_LIMIT: usize = 388 * KIB;
const MEMORY_PAGES: i32 = 7;

const LENGTH_ORDER = memory.data<u8>([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]);

export let inputAt: usize = INPUT_START;
export let outputAt: usize = OUTPUT_START;
/** Bits that were taken from the input and belong to what comes next. */
export let bitCount: u32 = 0;
let bitBuffer: u64 = 0;

let state: i32 = BLOCK;
let isLastBlock: bool = false;
/** Below this address nothing has been decoded. */
let lowest: usize = OUTPUT_START;
/** Bytes of a stored block or of a match that are still to come. */
let pendingBytes: usize = 0;
let pendingDistance: usize = 0;
let literalCount: u32 = 0;
let distanceCount: u32 = 0;
let lengthCount: u32 = 0;
let lengthsRead: u32 = 0;
let literalFurtherMask: u32 = 0;
let distanceFurtherMask: u32 = 0;
let hasFixedTables: bool = false;

memory.grow(MEMORY_PAGES - memory.size());
makeModels();
makePatterns();

function makeModels(): void {
  for (let symbol: u32 = 0; symbol < 256; symbol++) store<u32>(LITERAL_MODELS + symbol * 4, LITERAL | (symbol << 16));
  store<u32>(LITERAL_MODELS + 256 * 4, SPECIAL | END_OF_BLOCK);
  let base: u32 = 3;
  for (let symbol: u32 = 257; symbol < 285; symbol++) {
    const extra: u32 = symbol < 265 ? 0 : (symbol - 261) >> 2;
    store<u32>(LITERAL_MODELS + symbol * 4, (base << 16) | extra);
    base += 1 << extra;
  }
  store<u32>(LITERAL_MODELS + 285 * 4, (<u32>MAX_MATCH_BYTES) << 16);
  store<u32>(LITERAL_MODELS + 286 * 4, SPECIAL);
  store<u32>(LITERAL_MODELS + 287 * 4, SPECIAL);
  base = 1;
  for (let symbol: u32 = 0; symbol < 30; symbol++) {
    const extra: u32 = symbol < 4 ? 0 : (symbol - 2) >> 1;
    store<u32>(DISTANCE_MODELS + symbol * 4, (base << 16) | extra);
    base += 1 << extra;
  }
  store<u32>(DISTANCE_MODELS + 30 * 4, DISTANCE_SPECIAL);
  store<u32>(DISTANCE_MODELS + 31 * 4, DISTANCE_SPECIAL);
  for (let symbol: u32 = 0; symbol < LENGTH_SYMBOLS; symbol++) store<u32>(LENGTH_MODELS + symbol * 4, symbol << 16);
}

function makePatterns(): void {
  for (let distance: usize = 1; distance < WORD_BYTES; distance++) {
    for (let i: usize = 0; i < WORD_BYTES; i++) store<u8>(PATTERNS + distance * WORD_BYTES + i, <u8>(i % distance));
    store<u8>(STEPS + distance, <u8>(WORD_BYTES - (WORD_BYTES % distance)));
  }
}

/** Starts new data, whose output goes behind what is there and refers to nothing of it. */
export function begin(): void {
  state = BLOCK;
  isLastBlock = false;
  bitBuffer = 0;
  bitCount = 0;
  lowest = outputAt;
}

/** Makes room for output: moves what matches may reach back to in front of OUTPUT_START, and `outputAt` there. */
export function slide(): void {
  memory.copy(HISTORY_START, outputAt - HISTORY_BYTES, HISTORY_BYTES);
  const bytes = outputAt - OUTPUT_START;
  lowest = max(lowest, HISTORY_START + bytes) - bytes;
  outputAt = OUTPUT_START;
}

/**
 * Decodes until something is missing. Stops with AT_BLOCK in front of a block's header once `outputAt` is `stopAt` or more.
 */
export function inflate(inputEnd: usize, outputEnd: usize, stopAt: usize): i32 {
  let result = GO_ON;
  while (result === GO_ON) {
    switch (state) {
      case BLOCK:
        if (outputAt >= stopAt) return AT_BLOCK;
        result = readBlockHeader(inputEnd);
        break;
      case STORED_SIZE:
        result = readStoredSize(inputEnd);
        break;
      case STORED_BYTES:
        result = copyStored(inputEnd, outputEnd);
        break;
      case CODE_COUNTS:
        result = readCodeCounts(inputEnd);
        break;
      case LENGTH_CODES:
        result = readLengthCodes(inputEnd);
        break;
      case CODE_LENGTHS:
        result = readCodeLengths(inputEnd);
        break;
      case SYMBOL:
        if (inputEnd - inputAt >= FAST_INPUT_BYTES && outputEnd - outputAt >= FAST_OUTPUT_BYTES) {
          result = decodeFast(inputEnd - FAST_INPUT_BYTES, outputEnd - FAST_OUTPUT_BYTES);
        }
        if (result === GO_ON && state === SYMBOL) result = decodeCarefully(inputEnd, outputEnd);
        break;
      case MATCH:
        result = copyPending(outputEnd);
        break;
      default:
        return DONE;
    }
  }
  return result;
}

/** Takes bytes until `count` bits are there; never more than needed, so that what follows the data is left alone. */
function need(count: u32, inputEnd: usize): bool {
  while (bitCount < count) {
    if (inputAt === inputEnd) return false;
    bitBuffer |= (<u64>load<u8>(inputAt++)) << bitCount;
    bitCount += 8;
  }
  return true;
}

function drop(count: u32): void {
  bitBuffer >>= count;
  bitCount -= count;
}

function endBlock(): void {
  state = isLastBlock ? END : BLOCK;
}

function readBlockHeader(inputEnd: usize): i32 {
  if (!need(3, inputEnd)) return NEEDS_INPUT;
  isLastBlock = (bitBuffer & 1) !== 0;
  const type = (<u32>bitBuffer >> 1) & 3;
  drop(3);
  if (type === 0) {
    drop(bitCount & 7);
    state = STORED_SIZE;
  } else if (type === 1) {
    makeFixedTables();
    state = SYMBOL;
  } else if (type === 2) {
    state = CODE_COUNTS;
  } else {
    return BAD_BLOCK_TYPE;
  }
  return GO_ON;
}

function readStoredSize(inputEnd: usize): i32 {
  if (!need(32, inputEnd)) return NEEDS_INPUT;
  const size = <u32>bitBuffer & 0xffff;
  const complement = <u32>bitBuffer >> 16;
  if ((size ^ complement) !== 0xffff) return BAD_STORED_LENGTH;
  drop(32);
  pendingBytes = size;
  state = STORED_BYTES;
  return GO_ON;
}

function copyStored(inputEnd: usize, outputEnd: usize): i32 {
  const length = min(pendingBytes, min(inputEnd - inputAt, outputEnd - outputAt));
  memory.copy(outputAt, inputAt, length);
  inputAt += length;
  outputAt += length;
  pendingBytes -= length;
  if (pendingBytes !== 0) return outputAt === outputEnd ? OUTPUT_FULL : NEEDS_INPUT;
  endBlock();
  return GO_ON;
}

function readCodeCounts(inputEnd: usize): i32 {
  if (!need(14, inputEnd)) return NEEDS_INPUT;
  const counts = <u32>bitBuffer;
  drop(14);
  literalCount = (counts & 31) + 257;
  distanceCount = ((counts >> 5) & 31) + 1;
  lengthCount = ((counts >> 10) & 15) + 4;
  if (literalCount > 286 || distanceCount > 30) return BAD_CODE_COUNT;
  lengthsRead = 0;
  memory.fill(LENGTH_LENGTHS, 0, LENGTH_SYMBOLS);
  state = LENGTH_CODES;
  return GO_ON;
}

function readLengthCodes(inputEnd: usize): i32 {
  for (; lengthsRead < lengthCount; lengthsRead++) {
    if (!need(3, inputEnd)) return NEEDS_INPUT;
    store<u8>(LENGTH_LENGTHS + load<u8>(LENGTH_ORDER + lengthsRead), <u8>bitBuffer & 7);
    drop(3);
  }
  const longest = makeTable(LENGTH_LENGTHS, LENGTH_SYMBOLS, LENGTH_TABLE, LENGTH_ROOT_BITS, LENGTH_MODELS, SPECIAL);
  if (longest < 0 || isIncomplete) return BAD_CODE_LENGTHS;
  lengthsRead = 0;
  state = CODE_LENGTHS;
  return GO_ON;
}

function readCodeLengths(inputEnd: usize): i32 {
  const total = literalCount + distanceCount;
  while (lengthsRead < total) {
    let entry: u32;
    for (;;) {
      entry = load<u32>(LENGTH_TABLE + ((<u32>bitBuffer & LENGTH_ROOT_MASK) << 2));
      if ((entry & 63) <= bitCount) break;
      if (!need(bitCount + 1, inputEnd)) return NEEDS_INPUT;
    }
    const codeBits = entry & 63;
    const symbol = entry >> 16;
    if (symbol < 16) {
      drop(codeBits);
      store<u8>(SYMBOL_LENGTHS + lengthsRead++, <u8>symbol);
      continue;
    }
    const extraBits: u32 = symbol === 16 ? 2 : symbol === 17 ? 3 : 7;
    if (!need(codeBits + extraBits, inputEnd)) return NEEDS_INPUT;
    const extra = (<u32>bitBuffer >> codeBits) & ((1 << extraBits) - 1);
    drop(codeBits + extraBits);
    let length: u8 = 0;
    if (symbol === 16) {
      if (lengthsRead === 0) return BAD_CODE_LENGTHS;
      length = load<u8>(SYMBOL_LENGTHS + lengthsRead - 1);
    }
    const repeats = extra + (symbol === 18 ? 11 : 3);
    if (lengthsRead + repeats > total) return BAD_CODE_LENGTHS;
    memory.fill(SYMBOL_LENGTHS + lengthsRead, length, repeats);
    lengthsRead += repeats;
  }
  if (load<u8>(SYMBOL_LENGTHS + 256) === 0) return BAD_LITERAL_CODES;
  return makeTables(literalCount, distanceCount);
}

function makeFixedTables(): void {
  if (hasFixedTables) return;
  memory.fill(SYMBOL_LENGTHS, 8, 144);
  memory.fill(SYMBOL_LENGTHS + 144, 9, 256 - 144);
  memory.fill(SYMBOL_LENGTHS + 256, 7, 280 - 256);
  memory.fill(SYMBOL_LENGTHS + 280, 8, LITERAL_SYMBOLS - 280);
  memory.fill(SYMBOL_LENGTHS + LITERAL_SYMBOLS, 5, DISTANCE_SYMBOLS);
  makeTables(LITERAL_SYMBOLS, DISTANCE_SYMBOLS);
  hasFixedTables = true;
}

function makeTables(literals: u32, distances: u32): i32 {
  hasFixedTables = false;
  let furtherBits = makeTable(SYMBOL_LENGTHS, literals, LITERAL_TABLE, LITERAL_ROOT_BITS, LITERAL_MODELS, SPECIAL);
  if (furtherBits < 0) return BAD_LITERAL_CODES;
  literalFurtherMask = (1 << furtherBits) - 1;
  furtherBits = makeTable(SYMBOL_LENGTHS + literals, distances, DISTANCE_TABLE, DISTANCE_ROOT_BITS, DISTANCE_MODELS, DISTANCE_SPECIAL);
  if (furtherBits < 0) return BAD_DISTANCE_CODES;
  distanceFurtherMask = (1 << furtherBits) - 1;
  state = SYMBOL;
  return GO_ON;
}

let isIncomplete: bool = false;

/**
 * Makes the table of a canonical code. Returns how many bits the further tables are indexed by, or -1 when the code is
 * over-subscribed or incomplete; a single code of one bit, or none at all, may be incomplete.
 */
function makeTable(lengths: usize, symbols: u32, table: usize, rootBits: u32, models: usize, special: u32): i32 {
  memory.fill(COUNTS, 0, 32);
  for (let symbol: u32 = 0; symbol < symbols; symbol++) {
    const count = COUNTS + ((<usize>load<u8>(lengths + symbol)) << 1);
    store<u16>(count, load<u16>(count) + 1);
  }
  let longest = MAX_CODE_BITS;
  while (longest > 0 && load<u16>(COUNTS + (longest << 1)) === 0) longest--;
  let free: i32 = 1;
  let offset: u32 = 0;
  for (let length: u32 = 1; length <= MAX_CODE_BITS; length++) {
    const count = <u32>load<u16>(COUNTS + (length << 1));
    store<u16>(OFFSETS + (length << 1), <u16>offset);
    offset += count;
    free = (free << 1) - <i32>count;
    if (free < 0) return -1;
  }
  isIncomplete = free !== 0;
  if (isIncomplete) {
    if (longest > 1) return -1;
    const invalid = special | 0x101;
    for (let i: u32 = 0; i < (<u32>1) << rootBits; i++) store<u32>(table + (i << 2), invalid);
    if (longest === 0) return 0;
  }
  for (let symbol: u32 = 0; symbol < symbols; symbol++) {
    const length = <usize>load<u8>(lengths + symbol);
    if (length === 0) continue;
    const place = load<u16>(OFFSETS + (length << 1));
    store<u16>(OFFSETS + (length << 1), place + 1);
    store<u16>(SORTED + ((<usize>place) << 1), <u16>symbol);
  }
  if (isIncomplete) {
    const entry = load<u32>(models + ((<usize>load<u16>(SORTED)) << 2)) + 0x101;
    for (let i: u32 = 0; i < (<u32>1) << rootBits; i += 2) store<u32>(table + (i << 2), entry);
    return 0;
  }
  return fillTable(table, rootBits, models, longest, special);
}

/** Codes are stored with their first bit lowest: so a table for one bit more is the table twice. */
function fillTable(table: usize, rootBits: u32, models: usize, longest: u32, special: u32): i32 {
  let next = SORTED;
  let code: u32 = 0;
  for (let length: u32 = 1; length <= rootBits; length++) {
    const half = (<usize>1) << (length + 1);
    memory.copy(table + half, table, half);
    for (let left = <u32>load<u16>(COUNTS + (length << 1)); left > 0; left--) {
      store<u32>(table + (code << 2), load<u32>(models + ((<usize>load<u16>(next)) << 2)) + length * 0x101);
      next += 2;
      code = following(code, length);
    }
  }
  if (longest <= rootBits) return 0;
  const rootMask: u32 = (1 << rootBits) - 1;
  const furtherBits = longest - rootBits;
  const furtherEntries: u32 = 1 << furtherBits;
  let prefix: u32 = u32.MAX_VALUE;
  let further: u32 = 0;
  let end: u32 = 1 << rootBits;
  for (let length = rootBits + 1; length <= longest; length++) {
    for (let left = <u32>load<u16>(COUNTS + (length << 1)); left > 0; left--) {
      if ((code & rootMask) !== prefix) {
        prefix = code & rootMask;
        further = end;
        end += furtherEntries;
        store<u32>(table + (prefix << 2), special | FURTHER_TABLE | (further << 18));
      }
      const entry = load<u32>(models + ((<usize>load<u16>(next)) << 2)) + length * 0x101;
      for (let i = code >> rootBits; i < furtherEntries; i += 1 << (length - rootBits)) store<u32>(table + ((further + i) << 2), entry);
      next += 2;
      code = following(code, length);
    }
  }
  return furtherBits;
}

/** The next code of as many bits: counts up from the highest bit. After the last code of all the result means nothing. */
function following(code: u32, length: u32): u32 {
  const free = code ^ ((1 << length) - 1);
  const bit: u32 = 1 << (31 - clz(free));
  return (code & (bit - 1)) | bit;
}

/** A symbol at a time, near the end of a window. Takes nothing until the whole of it is there. */
function decodeCarefully(inputEnd: usize, outputEnd: usize): i32 {
  let entry: u32;
  for (;;) {
    entry = load<u32>(LITERAL_TABLE + ((<u32>bitBuffer & LITERAL_ROOT_MASK) << 2));
    if (<i32>entry > 0 && (entry & FURTHER_TABLE) !== 0) entry = furtherLiteral(entry, bitBuffer, literalFurtherMask);
    if (((entry >> 8) & 15) <= bitCount) break;
    if (!need(bitCount + 1, inputEnd)) return NEEDS_INPUT;
  }
  if (<i32>entry < 0) {
    if (outputAt === outputEnd) return OUTPUT_FULL;
    store<u8>(outputAt++, <u8>(entry >> 16));
    drop(entry & 63);
    return GO_ON;
  }
  if ((entry & SPECIAL) !== 0) {
    if ((entry & END_OF_BLOCK) === 0) return BAD_SYMBOL;
    drop(entry & 63);
    endBlock();
    return GO_ON;
  }
  const lengthBits = entry & 63;
  if (!need(lengthBits, inputEnd)) return NEEDS_INPUT;
  const length = valueOf(entry, bitBuffer);
  for (;;) {
    const bits = bitBuffer >> lengthBits;
    entry = load<u32>(DISTANCE_TABLE + ((<u32>bits & DISTANCE_ROOT_MASK) << 2));
    if ((entry & FURTHER_TABLE) !== 0) entry = furtherDistance(entry, bits, distanceFurtherMask);
    if (lengthBits + ((entry >> 8) & 15) <= bitCount) break;
    if (!need(bitCount + 1, inputEnd)) return NEEDS_INPUT;
  }
  if (<i32>entry < 0) return BAD_DISTANCE;
  if (!need(lengthBits + (entry & 63), inputEnd)) return NEEDS_INPUT;
  const distance = <usize>valueOf(entry, bitBuffer >> lengthBits);
  if (distance > outputAt - lowest) return TOO_FAR_BACK;
  drop(lengthBits + (entry & 63));
  pendingBytes = length;
  pendingDistance = distance;
  state = MATCH;
  return GO_ON;
}

function copyPending(outputEnd: usize): i32 {
  const length = min(pendingBytes, outputEnd - outputAt);
  for (let end = outputAt + length; outputAt < end; outputAt++) store<u8>(outputAt, load<u8>(outputAt - pendingDistance));
  pendingBytes -= length;
  if (pendingBytes !== 0) return OUTPUT_FULL;
  state = SYMBOL;
  return GO_ON;
}

/** A length or a distance: the entry's base and the extra bits behind the code. */
function valueOf(entry: u32, bits: u64): u32 {
  const taken = <u32>bits & ((1 << (entry & 31)) - 1);
  return (entry >> 16) + (taken >> ((entry >> 8) & 15));
}

function furtherLiteral(entry: u32, bits: u64, mask: u32): u32 {
  return load<u32>(LITERAL_TABLE + (entry >> 16) + (((<u32>bits >> LITERAL_ROOT_BITS) & mask) << 2));
}

function furtherDistance(entry: u32, bits: u64, mask: u32): u32 {
  return load<u32>(DISTANCE_TABLE + ((entry >> 16) & 0x7fff) + (((<u32>bits >> DISTANCE_ROOT_BITS) & mask) << 2));
}

/** The entry of what comes next in a buffer that is two bits to the left. */
function literalEntry(bits: u64): u32 {
  return load<u32>(<usize>bits & (LITERAL_ROOT_MASK << 2), LITERAL_TABLE);
}

/** As `valueOf`, of a buffer that is two bits to the left. */
function fastValueOf(entry: u32, bits: u64): u32 {
  const taken = <u32>bits & ((4 << (entry & 31)) - 1);
  return (entry >> 16) + ((taken >> ((entry >> 8) & 15)) >> 2);
}

/** Three refills of up to 7 bytes, each of which looks at 8. */
const FAST_INPUT_BYTES: usize = 7 + 7 + 8;
/** Literals and a match between two looks at what is left. */
const FAST_OUTPUT_BYTES: usize = 3 + MAX_MATCH_BYTES;

/**
 * Symbols while at least FAST_INPUT_BYTES and FAST_OUTPUT_BYTES are left.
 *
 * In here the buffer is kept two bits to the left, so that its masked lowest bits are a table's index in bytes; what the
 * two bits below are does not matter. `count` counts them too. One load fills the buffer to 54 bits or more: enough for
 * three literals of the first table and the look at a fourth entry, or for a length and its distance (48). Bits above
 * `count` are right already when the next load sets them again. Of `count` the lowest six bits count, so that entries
 * can be subtracted as they are; shifts take no more of them either.
 */
function decodeFast(inputSafe: usize, outputSafe: usize): i32 {
  const literalMask = literalFurtherMask;
  const distanceMask = distanceFurtherMask;
  const low = lowest;
  let input = inputAt;
  let output = outputAt;
  let bits = bitBuffer << 2;
  let count = bitCount + 2;
  let result = GO_ON;

  bits |= load<u64>(input) << count;
  input += (63 - count) >> 3;
  count |= 56;
  let entry = literalEntry(bits);
  do {
    if (<i32>entry < 0) {
      store<u8>(output++, <u8>(entry >> 16));
      bits >>= entry;
      count -= entry;
      entry = literalEntry(bits);
      if (<i32>entry < 0) {
        store<u8>(output++, <u8>(entry >> 16));
        bits >>= entry;
        count -= entry;
        entry = literalEntry(bits);
        if (<i32>entry < 0) {
          store<u8>(output++, <u8>(entry >> 16));
          bits >>= entry;
          count -= entry;
          entry = literalEntry(bits);
        }
      }
      bits |= load<u64>(input) << count;
      input += 7 - ((count >> 3) & 7);
      count |= 56;
      if (<i32>entry < 0) continue;
    }
    if ((entry & SPECIAL) !== 0) {
      if ((entry & FURTHER_TABLE) !== 0) {
        entry = furtherLiteral(entry, bits >> 2, literalMask);
        if (<i32>entry < 0) {
          store<u8>(output++, <u8>(entry >> 16));
          bits >>= entry;
          count -= entry;
          bits |= load<u64>(input) << count;
          input += 7 - ((count >> 3) & 7);
          count |= 56;
          entry = literalEntry(bits);
          continue;
        }
      }
      if ((entry & SPECIAL) !== 0) {
        if ((entry & END_OF_BLOCK) === 0) {
          result = BAD_SYMBOL;
          break;
        }
        bits >>= entry;
        count -= entry;
        endBlock();
        break;
      }
    }
    const length = <usize>fastValueOf(entry, bits);
    bits >>= entry;
    count -= entry;
    entry = load<u32>(<usize>bits & (DISTANCE_ROOT_MASK << 2), DISTANCE_TABLE);
    if (<i32>entry < 0) {
      if ((entry & FURTHER_TABLE) !== 0) entry = furtherDistance(entry, bits >> 2, distanceMask);
      if (<i32>entry < 0) {
        result = BAD_DISTANCE;
        break;
      }
    }
    const distance = <usize>fastValueOf(entry, bits);
    bits >>= entry;
    count -= entry;
    if (distance > output - low) {
      result = TOO_FAR_BACK;
      break;
    }
    bits |= load<u64>(input) << count;
    input += 7 - ((count >> 3) & 7);
    count |= 56;
    entry = literalEntry(bits);

    const end = output + length;
    if (distance >= WORD_BYTES) {
      let from = output - distance;
      v128.store(output, v128.load(from));
      while ((output += WORD_BYTES) < end) v128.store(output, v128.load((from += WORD_BYTES)));
    } else {
      const word = i8x16.swizzle(v128.load(output - distance), v128.load(PATTERNS + distance * WORD_BYTES));
      const step = <usize>load<u8>(STEPS + distance);
      do v128.store(output, word);
      while ((output += step) < end);
    }
    output = end;
  } while (<i32>((inputSafe - input) | (outputSafe - output)) >= 0);

  // Whole bytes go back: what comes next may not be bits at all.
  bits >>= 2;
  count = (count & 63) - 2;
  input -= count >> 3;
  count &= 7;
  inputAt = input;
  outputAt = output;
  bitBuffer = bits & (((<u64>1) << count) - 1);
  bitCount = count;
  return result;
}
