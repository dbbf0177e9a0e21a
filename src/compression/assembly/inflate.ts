/*
 * DEFLATE (RFC 1951), resumable: input and output are windows in this module's memory, and decoding stops and goes on
 * at any byte of either. The caller puts input at `inputAt`..`inputEnd`, reads output behind `OUTPUT_START`, and calls
 * `slide` when there is no room for more. What the tables and the memory look like: `inflate/memory.ts`.
 */

import { makeTable } from "./inflate/code-table";
import { fastValueOf, furtherDistance, furtherLiteral, literalEntry, valueOf } from "./inflate/entries";
import {
  DISTANCE_MODELS,
  DISTANCE_ROOT_BITS,
  DISTANCE_ROOT_MASK,
  DISTANCE_SPECIAL,
  DISTANCE_SYMBOLS,
  DISTANCE_TABLE,
  END_OF_BLOCK,
  FURTHER_TABLE,
  HISTORY_BYTES,
  HISTORY_START,
  INPUT_START,
  LENGTH_LENGTHS,
  LENGTH_MODELS,
  LENGTH_ROOT_BITS,
  LENGTH_ROOT_MASK,
  LENGTH_SYMBOLS,
  LENGTH_TABLE,
  LITERAL_MODELS,
  LITERAL_ROOT_BITS,
  LITERAL_ROOT_MASK,
  LITERAL_SYMBOLS,
  LITERAL_TABLE,
  MAX_MATCH_BYTES,
  OUTPUT_START,
  PATTERNS,
  SPECIAL,
  STEPS,
  SYMBOL_LENGTHS,
  WORD_BYTES,
} from "./inflate/memory";

export { INPUT_LIMIT, INPUT_START, OUTPUT_LIMIT, OUTPUT_START } from "./inflate/memory";

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
  const furtherBits = makeTable(LENGTH_LENGTHS, LENGTH_SYMBOLS, LENGTH_TABLE, LENGTH_ROOT_BITS, LENGTH_MODELS, SPECIAL, false);
  if (furtherBits < 0) return BAD_CODE_LENGTHS;
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
  let furtherBits = makeTable(SYMBOL_LENGTHS, literals, LITERAL_TABLE, LITERAL_ROOT_BITS, LITERAL_MODELS, SPECIAL, true);
  if (furtherBits < 0) return BAD_LITERAL_CODES;
  literalFurtherMask = (1 << furtherBits) - 1;
  furtherBits = makeTable(
    SYMBOL_LENGTHS + literals,
    distances,
    DISTANCE_TABLE,
    DISTANCE_ROOT_BITS,
    DISTANCE_MODELS,
    DISTANCE_SPECIAL,
    true,
  );
  if (furtherBits < 0) return BAD_DISTANCE_CODES;
  distanceFurtherMask = (1 << furtherBits) - 1;
  state = SYMBOL;
  return GO_ON;
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
