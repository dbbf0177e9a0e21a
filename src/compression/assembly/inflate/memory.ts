/*
 * What lies where in the kernel's memory, and what is in the tables.
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

const LITERAL: u32 = 1 << 31;
export const SPECIAL: u32 = 1 << 15;
export const FURTHER_TABLE: u32 = 1 << 14;
export const END_OF_BLOCK: u32 = 1 << 13;
export const DISTANCE_SPECIAL: u32 = 1 << 31;

export const LITERAL_SYMBOLS: u32 = 288;
export const DISTANCE_SYMBOLS: u32 = 32;
export const LENGTH_SYMBOLS: u32 = 19;
export const MAX_CODE_BITS: u32 = 15;
export const LITERAL_ROOT_BITS: u32 = 11;
export const DISTANCE_ROOT_BITS: u32 = 9;
export const LENGTH_ROOT_BITS: u32 = 7;
export const LITERAL_ROOT_MASK: u32 = (1 << LITERAL_ROOT_BITS) - 1;
export const DISTANCE_ROOT_MASK: u32 = (1 << DISTANCE_ROOT_BITS) - 1;
export const LENGTH_ROOT_MASK: u32 = (1 << LENGTH_ROOT_BITS) - 1;
// Every further table holds at least two symbols, because codes that are longer than one bit are complete.
const LITERAL_ENTRIES: usize = (1 << LITERAL_ROOT_BITS) + ((LITERAL_SYMBOLS / 2) << (MAX_CODE_BITS - LITERAL_ROOT_BITS));
const DISTANCE_ENTRIES: usize = (1 << DISTANCE_ROOT_BITS) + ((DISTANCE_SYMBOLS / 2) << (MAX_CODE_BITS - DISTANCE_ROOT_BITS));
const LENGTH_ENTRIES: usize = 1 << LENGTH_ROOT_BITS;

export const MAX_MATCH_BYTES: usize = 258;
export const WORD_BYTES: usize = 16;

// Memory. What the compiler itself puts there lies below 2 KiB; all tables end below 28 KiB.
export const LITERAL_MODELS: usize = 2048; // what a symbol's entry is without its code
export const DISTANCE_MODELS: usize = LITERAL_MODELS + LITERAL_SYMBOLS * 4;
export const LENGTH_MODELS: usize = DISTANCE_MODELS + DISTANCE_SYMBOLS * 4;
export const PATTERNS: usize = LENGTH_MODELS + 80; // for each distance below 16: which byte of a period is where in a word
export const STEPS: usize = PATTERNS + 16 * WORD_BYTES; // and how many bytes of a word are whole periods
export const SYMBOL_LENGTHS: usize = STEPS + 16;
export const LENGTH_LENGTHS: usize = SYMBOL_LENGTHS + LITERAL_SYMBOLS + DISTANCE_SYMBOLS;
export const COUNTS: usize = LENGTH_LENGTHS + 32; // u16 for each code length
export const OFFSETS: usize = COUNTS + 32;
export const SORTED: usize = OFFSETS + 32; // u16 for each symbol
export const LENGTH_TABLE: usize = SORTED + LITERAL_SYMBOLS * 2;
export const DISTANCE_TABLE: usize = LENGTH_TABLE + LENGTH_ENTRIES * 4;
export const LITERAL_TABLE: usize = DISTANCE_TABLE + DISTANCE_ENTRIES * 4;

const KIB: usize = 1024;
/** Where input goes, up to INPUT_LIMIT. */
export const INPUT_START: usize = 32 * KIB;
export const INPUT_LIMIT: usize = 96 * KIB;
export const HISTORY_BYTES: usize = 32 * KIB;
export const HISTORY_START: usize = 100 * KIB;
/** Where output goes, behind what was decoded before it. */
export const OUTPUT_START: usize = HISTORY_START + HISTORY_BYTES;
/** Where output ends; up to 16 bytes behind it may be written too. */
export const OUTPUT_LIMIT: usize = 388 * KIB;
const MEMORY_PAGES: i32 = 7;

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
