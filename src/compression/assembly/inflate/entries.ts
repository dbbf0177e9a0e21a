import { LITERAL_ROOT_BITS, DISTANCE_ROOT_BITS, LITERAL_ROOT_MASK, DISTANCE_TABLE, LITERAL_TABLE } from "./memory";

/** A length or a distance: the entry's base and the extra bits behind the code. */
export function valueOf(entry: u32, bits: u64): u32 {
  const taken = <u32>bits & ((1 << (entry & 31)) - 1);
  return (entry >> 16) + (taken >> ((entry >> 8) & 15));
}

export function furtherLiteral(entry: u32, bits: u64, mask: u32): u32 {
  return load<u32>(LITERAL_TABLE + (entry >> 16) + (((<u32>bits >> LITERAL_ROOT_BITS) & mask) << 2));
}

export function furtherDistance(entry: u32, bits: u64, mask: u32): u32 {
  return load<u32>(DISTANCE_TABLE + ((entry >> 16) & 0x7fff) + (((<u32>bits >> DISTANCE_ROOT_BITS) & mask) << 2));
}

/** The entry of what comes next in a buffer that is two bits to the left. */
export function literalEntry(bits: u64): u32 {
  return load<u32>(<usize>bits & (LITERAL_ROOT_MASK << 2), LITERAL_TABLE);
}

/** As `valueOf`, of a buffer that is two bits to the left. */
export function fastValueOf(entry: u32, bits: u64): u32 {
  const taken = <u32>bits & ((4 << (entry & 31)) - 1);
  return (entry >> 16) + ((taken >> ((entry >> 8) & 15)) >> 2);
}
