import { COUNTS, FURTHER_TABLE, MAX_CODE_BITS, OFFSETS, SORTED } from "./memory";

/**
 * Makes the table of a canonical code, whose lengths are bytes at `lengths`. Returns how many bits the further tables are
 * indexed by, or -1 when the code is over-subscribed or incomplete.
 * @param special an entry's flag that it is no length or distance
 * @param mayBeSingle the code may be incomplete if it is a single one of one bit, or none at all
 */
export function makeTable(lengths: usize, symbols: u32, table: usize, rootBits: u32, models: usize, special: u32, mayBeSingle: bool): i32 {
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
  const isIncomplete = free !== 0;
  if (isIncomplete) {
    if (longest > 1 || !mayBeSingle) return -1;
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
