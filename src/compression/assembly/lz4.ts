/*
 * LZ4 blocks and their CRC-32C, a batch at a time. See docs/formats/zfile.md for how blocks are stored.
 *
 * The compressor makes the same choices as liblz4's `LZ4_compress_default` does for blocks of up to 64 KiB: one table of
 * 16-bit positions, greedy matching, a stride that grows where nothing matches. Equal choices give equal bytes.
 *
 * Every load and store is raw. Callers give areas inside of the memory, each followed by SLACK bytes that may be read, and
 * behind an output scribbled on: copies are of 16 bytes at a time and run over into them, or into what is written next. The 8
 * bytes before an input may be read, too. Nothing of what lies outside shows in a result.
 */

/** The farthest that a byte is folded (the others: see `foldedSum`), and the next multiple of 16. */
const FOLD_SPAN: usize = 290;
const FOLD_SPAN_ROUNDED: usize = 304;
/** Folding fewer bytes than this is no gain. */
const FOLD_LEAST: usize = 400;

/* Memory: [CRC tables][hash table][repeats][steps][folded][rest][plain][stored][sizes] */
const CRC_TABLES: usize = 0;
const CRC_TABLE_BYTES: usize = 256 * 4;
const HASH_TABLE: usize = CRC_TABLES + 16 * CRC_TABLE_BYTES;
const HASH_BITS: u32 = 13;
const HASH_TABLE_BYTES: usize = (1 << HASH_BITS) * 2;
/** Offset of an entry, two bytes each. */
const HASH_MASK: u32 = <u32>HASH_TABLE_BYTES - 2;
/** For each distance below 16, which of the bytes from that far back follow: 16 indexes. */
const REPEATS: usize = HASH_TABLE + HASH_TABLE_BYTES;
/** For each distance below 16, how many bytes of whole periods 16 bytes hold. */
const STEPS: usize = REPEATS + 16 * 16;
/** What a sum's folding leaves of each byte, behind zeros for what comes before the first. */
const FOLDED: usize = STEPS + 16 + FOLD_SPAN_ROUNDED;
const FOLDED_BYTES: usize = 8192;
/** The last bytes of what is folded. */
const REST: usize = FOLDED + FOLDED_BYTES;

export const SLACK: usize = 32;
/** Plain bytes of a batch. */
export const PLAIN: usize = REST + 2 * FOLD_SPAN_ROUNDED;
export const PLAIN_BYTES: usize = 1 << 20;
/** The same, stored: room for blocks of 4 KiB that grow. */
export const STORED: usize = PLAIN + PLAIN_BYTES + SLACK;
export const STORED_BYTES: usize = PLAIN_BYTES + (128 << 10);
/** Stored size of each block, 32 bits each. */
export const SIZES: usize = STORED + STORED_BYTES + SLACK;
export const MAX_BLOCKS: usize = 4096;
const END: usize = SIZES + MAX_BLOCKS * 4;

const HASH_PRIME: u32 = 2654435761;
const MIN_MATCH: usize = 4;
/** The last bytes of a block are always literals. */
const LAST_LITERALS: usize = 5;
/** No match starts closer to the end than this. */
const MATCH_FIND_LIMIT: usize = 12;
/** After 2^6 misses the stride grows by one. */
const SKIP_TRIGGER: u32 = 6;
/** The highest value of a token's half; more follows in extra bytes. */
const NIBBLE_MAX: usize = 15;

const CRC_POLYNOMIAL: u32 = 0x82f63b78; // Castagnoli, reflected
const CRC_BYTES: usize = 4;

/** Why a block is bad; what `failure` tells with each is said in src/compression/lz4.ts. */
const GOOD: i32 = 0;
const CRC_DIFFERS: i32 = 1;
const LITERAL_LENGTH_CUT: i32 = 2;
const LITERALS_CUT: i32 = 3;
const LITERALS_TOO_MANY: i32 = 4;
const ENDS_EARLY: i32 = 5;
const DISTANCE_CUT: i32 = 6;
const DISTANCE_BAD: i32 = 7;
const MATCH_LENGTH_CUT: i32 = 8;
const MATCH_TOO_LONG: i32 = 9;
const ENDS_WITH_MATCH: i32 = 10;

/** What is known of the block that `decodeBlocks` stopped at. */
export let failureReason: i32 = GOOD;
export let failureAt: u32 = 0;
export let failureFound: u32 = 0;
export let failureExpected: u32 = 0;

setUp();

function setUp(): void {
  memory.grow(<i32>((END + 0xffff) >> 16));
  for (let byte: u32 = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ CRC_POLYNOMIAL : crc >> 1;
    store<u32>(CRC_TABLES + ((<usize>byte) << 2), crc);
  }
  // Table k advances a byte by k positions more than the first.
  for (let entry: usize = 256; entry < 16 * 256; entry++) {
    const crc = load<u32>(CRC_TABLES + ((entry - 256) << 2));
    store<u32>(CRC_TABLES + (entry << 2), load<u32>(CRC_TABLES + ((<usize>(crc & 0xff)) << 2)) ^ (crc >> 8));
  }
  for (let distance: usize = 1; distance < 16; distance++) {
    store<u8>(STEPS + distance, <u8>(16 - (16 % distance)));
    for (let i: usize = 0; i < 16; i++) store<u8>(REPEATS + distance * 16 + i, <u8>(i % distance));
  }
}

// ---------------------------------------------------------------------------------------------------------------- CRC-32C

/** The register after `[at, end)`, started at `seed`, with no inversion before or after. */
export function crc32c(seed: u32, at: usize, end: usize): u32 {
  let crc = seed;
  while (end - at >= FOLD_LEAST) {
    const stop = min(at + FOLDED_BYTES, end);
    crc = foldedSum(crc, at, stop);
    at = stop;
  }
  return tableSum(crc, at, end);
}

/**
 * The polynomial divides x^(8·290) + x^(8·136) + x^(8·113) + x^(8·107) + x^(8·32) + 1, so a byte counts the same as if it
 * were added 154, 177, 183, 258 and 290 bytes further on. All but the last bytes are folded away like this, 16 at a time.
 */
function foldedSum(crc: u32, at: usize, end: usize): u32 {
  const foldEnd = FOLDED - FOLD_SPAN + ((end - at - FOLD_SPAN) & ~15);
  // `to` is where the farthest one comes from, so that the others are at offsets that a load takes for free.
  let to = FOLDED - FOLD_SPAN;
  v128.store(to, v128.xor(v128.load(at), i32x4(crc, 0, 0, 0)), FOLD_SPAN);
  for (at += 16, to += 16; to < foldEnd; at += 16, to += 16) v128.store(to, folded(at, to), FOLD_SPAN);
  // Nothing that is not folded away is added further on.
  for (let clear = foldEnd; clear < foldEnd + FOLD_SPAN_ROUNDED; clear += 16) v128.store(clear, i64x2(0, 0), FOLD_SPAN);
  const restBytes = end - at;
  for (let i: usize = 0; i < restBytes; i += 16) v128.store(REST + i, folded(at + i, to + i));
  return tableSum(0, REST, REST + restBytes);
}

function folded(at: usize, to: usize): v128 {
  return v128.xor(
    v128.xor(
      v128.xor(v128.load(at), v128.load(to, FOLD_SPAN - 154)),
      v128.xor(v128.load(to, FOLD_SPAN - 177), v128.load(to, FOLD_SPAN - 183)),
    ),
    v128.xor(v128.load(to, FOLD_SPAN - 258), v128.load(to)),
  );
}

/** The same, 16 bytes a step from tables. In 64 bits, because V8 would load what it XORs in 32 bits twice. */
function tableSum(seed: u32, at: usize, end: usize): u32 {
  let crc = seed;
  while (at + 16 <= end) {
    const a = load<u32>(at) ^ crc;
    const b = load<u32>(at, 4);
    const c = load<u32>(at, 8);
    const d = load<u32>(at, 12);
    crc = <u32>(
      (<u64>load<u32>((a << 2) & 0x3fc, 15 * 1024) ^
        <u64>load<u32>((a >> 6) & 0x3fc, 14 * 1024) ^
        <u64>load<u32>((a >> 14) & 0x3fc, 13 * 1024) ^
        <u64>load<u32>((a >> 22) & 0x3fc, 12 * 1024) ^
        <u64>load<u32>((b << 2) & 0x3fc, 11 * 1024) ^
        <u64>load<u32>((b >> 6) & 0x3fc, 10 * 1024) ^
        <u64>load<u32>((b >> 14) & 0x3fc, 9 * 1024) ^
        <u64>load<u32>((b >> 22) & 0x3fc, 8 * 1024) ^
        <u64>load<u32>((c << 2) & 0x3fc, 7 * 1024) ^
        <u64>load<u32>((c >> 6) & 0x3fc, 6 * 1024) ^
        <u64>load<u32>((c >> 14) & 0x3fc, 5 * 1024) ^
        <u64>load<u32>((c >> 22) & 0x3fc, 4 * 1024) ^
        <u64>load<u32>((d << 2) & 0x3fc, 3 * 1024) ^
        <u64>load<u32>((d >> 6) & 0x3fc, 2 * 1024) ^
        <u64>load<u32>((d >> 14) & 0x3fc, 1024) ^
        <u64>load<u32>((d >> 22) & 0x3fc))
    );
    at += 16;
  }
  while (at < end) crc = load<u32>((<usize>((crc ^ load<u8>(at++)) & 0xff)) << 2) ^ (crc >> 8);
  return crc;
}

// --------------------------------------------------------------------------------------------------------------- compress

/**
 * Cuts `[input, input + inputBytes)` into blocks of `blockBytes`, at most 64 KiB, and stores each, compressed and followed by
 * its CRC, from `output` on; their stored sizes go to `sizes`. Returns the end of the output.
 */
export function compressBlocks(input: usize, inputBytes: usize, blockBytes: usize, crcSeed: u32, output: usize, sizes: usize): usize {
  const end = input + inputBytes;
  let to = output;
  let size = sizes;
  for (let at = input; at < end; at += blockBytes) {
    const codeEnd = compressBlock(at, min(at + blockBytes, end), to);
    store<u32>(size, <u32>(codeEnd + CRC_BYTES - to));
    size += 4;
    to = codeEnd + CRC_BYTES;
  }
  // All sums after all blocks: the tables of the one and of the other do not fit into a core's first cache together.
  to = output;
  for (let summed = sizes; summed < size; summed += 4) {
    const codeEnd = to + load<u32>(summed) - CRC_BYTES;
    store<u32>(codeEnd, crc32c(crcSeed, to, codeEnd));
    to = codeEnd + CRC_BYTES;
  }
  return to;
}

/** Offset in the hash table. */
function hash(word: u32): usize {
  return <usize>(((word * HASH_PRIME) >> (31 - HASH_BITS)) & HASH_MASK);
}

function compressBlock(start: usize, end: usize, out: usize): usize {
  if (end - start <= MATCH_FIND_LIMIT) return putLastLiterals(start, end, out);
  // Zeros are the start of the block, which is the first position that goes in. Clearing costs less than telling what is stale.
  memory.fill(HASH_TABLE, 0, HASH_TABLE_BYTES);
  const searchEnd = end - MATCH_FIND_LIMIT + 1;
  const matchEnd = end - LAST_LITERALS;
  let anchor = start;
  let ip = start + 1;
  let nextWord = load<u32>(ip);
  for (;;) {
    let match: usize;
    let stride: usize = 1;
    // The step to the first position is not counted.
    let strideEnd = min(ip + 1 + (1 << SKIP_TRIGGER), searchEnd);
    for (;;) {
      let next = ip + stride;
      if (next > strideEnd) {
        next = ip + ++stride;
        if (next > searchEnd) return putLastLiterals(anchor, end, out);
        strideEnd = min(strideEnd + (stride << SKIP_TRIGGER), searchEnd);
      }
      const word = nextWord;
      const slot = hash(word);
      nextWord = load<u32>(next);
      match = start + <usize>load<u16>(slot, HASH_TABLE);
      store<u16>(slot, <u16>(ip - start), HASH_TABLE);
      if (<u64>load<u32>(match) == <u64>word) break; // in 64 bits, as in `tableSum`
      ip = next;
    }

    // It may begin earlier: 8 bytes are looked at without a branch that could be guessed wrong.
    const room = min(ip - anchor, match - start);
    let back = min(equalBefore(ip, match), room);
    if (back == 8) while (back < room && load<u8>(ip - back - 1) == load<u8>(match - back - 1)) back++;

    let token = out++;
    const literals = ip - back - anchor;
    let high: usize;
    if (literals >= NIBBLE_MAX) {
      high = NIBBLE_MAX << 4;
      out = putLength(out, literals - NIBBLE_MAX);
      copyLong(out, anchor, literals);
    } else {
      high = literals << 4;
      v128.store(out, v128.load(anchor));
    }
    out += literals;

    for (;;) {
      store<u16>(out, <u16>(ip - match));
      out += 2;
      const known = ip + MIN_MATCH;
      ip = equalEnd(known, match + MIN_MATCH, matchEnd);
      const length = ip - known + back;
      if (length >= NIBBLE_MAX) {
        store<u8>(token, <u8>(high + NIBBLE_MAX));
        out = putLength(out, length - NIBBLE_MAX);
      } else {
        store<u8>(token, <u8>(high + length));
      }

      anchor = ip;
      if (ip >= searchEnd) return putLastLiterals(anchor, end, out);

      store<u16>(hash(load<u32>(ip - 2)), <u16>(ip - 2 - start), HASH_TABLE);
      const word = load<u32>(ip);
      const slot = hash(word);
      match = start + <usize>load<u16>(slot, HASH_TABLE);
      store<u16>(slot, <u16>(ip - start), HASH_TABLE);
      if (load<u32>(match) != word) break;
      token = out++;
      high = 0;
      back = 0;
    }
    nextWord = load<u32>(++ip);
  }
  return out; // never reached; the compiler asks for it
}

/** How many of the 8 bytes before `a` and before `b` are equal, from the last one on. */
function equalBefore(a: usize, b: usize): usize {
  return <usize>clz(load<u64>(a - 8) ^ load<u64>(b - 8)) >> 3;
}

/**
 * Where what follows `a` ceases to be equal to what follows `b`, `limit` at the latest. Where it is, and not how much was
 * equal, because all that comes next waits for it.
 */
function equalEnd(a: usize, b: usize, limit: usize): usize {
  while (a + 8 <= limit) {
    const differing = load<u64>(a) ^ load<u64>(b);
    if (differing != 0) return a + (<usize>ctz(differing) >> 3);
    a += 8;
    b += 8;
  }
  while (a < limit && load<u8>(a) == load<u8>(b)) {
    a++;
    b++;
  }
  return a;
}

/** Writes a length beyond a token's half: a run of 255 and what is left. */
function putLength(out: usize, length: usize): usize {
  while (length >= 255) {
    store<u8>(out++, 255);
    length -= 255;
  }
  store<u8>(out++, <u8>length);
  return out;
}

function copyLong(to: usize, from: usize, bytes: usize): void {
  const end = to + bytes;
  do {
    v128.store(to, v128.load(from));
    to += 16;
    from += 16;
  } while (to < end);
}

function putLastLiterals(anchor: usize, end: usize, out: usize): usize {
  const literals = end - anchor;
  if (literals >= NIBBLE_MAX) {
    store<u8>(out++, <u8>(NIBBLE_MAX << 4));
    out = putLength(out, literals - NIBBLE_MAX);
  } else {
    store<u8>(out++, <u8>(literals << 4));
  }
  copyLong(out, anchor, literals);
  return out + literals;
}

// ----------------------------------------------------------------------------------------------------------------- decode

/**
 * Decodes `count` stored blocks that lie back to back from `stored` on, whose sizes are at `sizes`, to `output`: `blockBytes`
 * from each, and `lastBytes` from the last. With `verify` each ends with its CRC, which is checked first; a stored size is
 * never smaller than that. Returns the number of good blocks: fewer than `count` when the next is bad.
 */
export function decodeBlocks(
  stored: usize,
  sizes: usize,
  count: i32,
  verify: bool,
  crcSeed: u32,
  output: usize,
  blockBytes: usize,
  lastBytes: usize,
): i32 {
  for (let block = 0; block < count; block++) {
    const storedEnd = stored + load<u32>(sizes);
    let codeEnd = storedEnd;
    if (verify) {
      codeEnd -= CRC_BYTES;
      const found = crc32c(crcSeed, stored, codeEnd);
      const expected = load<u32>(codeEnd);
      if (found != expected) {
        fail(CRC_DIFFERS, codeEnd - stored, found, expected);
        return block;
      }
    }
    const bytes = block + 1 == count ? lastBytes : blockBytes;
    if (decodeBlock(stored, codeEnd, output, output + bytes) != GOOD) return block;
    sizes += 4;
    stored = storedEnd;
    output += bytes;
  }
  return count;
}

function fail(reason: i32, at: usize, found: usize, expected: usize): i32 {
  failureReason = reason;
  failureAt = <u32>at;
  failureFound = <u32>found;
  failureExpected = <u32>expected;
  return reason;
}

/** Decodes one block to exactly `[output, limit)`. `out` never passes `limit`, and what is copied passes `out` by 32 at most. */
function decodeBlock(start: usize, end: usize, output: usize, limit: usize): i32 {
  let ip = start;
  let out = output;
  while (ip < end) {
    const token = <usize>load<u8>(ip++);

    let literals = token >> 4;
    if (literals != NIBBLE_MAX) {
      v128.store(out, v128.load(ip));
      if (literals > end - ip) return fail(LITERALS_CUT, ip - start, literals, end - ip);
      if (literals > limit - out) return fail(LITERALS_TOO_MANY, ip - start, literals, limit - out);
    } else {
      let more: usize;
      do {
        if (ip >= end) return fail(LITERAL_LENGTH_CUT, ip - start, 0, 0);
        more = <usize>load<u8>(ip++);
        literals += more;
      } while (more == 255);
      if (literals > end - ip) return fail(LITERALS_CUT, ip - start, literals, end - ip);
      if (literals > limit - out) return fail(LITERALS_TOO_MANY, ip - start, literals, limit - out);
      copyLong(out, ip, literals);
    }
    ip += literals;
    out += literals;
    if (end - ip < 2) {
      if (ip != end) return fail(DISTANCE_CUT, ip - start, 0, 0);
      return out == limit ? GOOD : fail(ENDS_EARLY, ip - start, out - output, limit - output);
    }

    const distance = <usize>load<u16>(ip);
    ip += 2;
    if (distance - 1 >= out - output) return fail(DISTANCE_BAD, ip - start, distance, out - output);
    let length = (token & NIBBLE_MAX) + MIN_MATCH;
    if (length != NIBBLE_MAX + MIN_MATCH) {
      if (length > limit - out) return fail(MATCH_TOO_LONG, ip - start, length, limit - out);
      const from = out - distance;
      if (distance >= 16) {
        v128.store(out, v128.load(from));
        store<u32>(out, load<u32>(from, 16), 16);
      } else {
        repeat(out, distance, length);
      }
    } else {
      let more: usize;
      do {
        if (ip >= end) return fail(MATCH_LENGTH_CUT, ip - start, 0, 0);
        more = <usize>load<u8>(ip++);
        length += more;
      } while (more == 255);
      if (length > limit - out) return fail(MATCH_TOO_LONG, ip - start, length, limit - out);
      if (distance >= 16) copyLong(out, out - distance, length);
      else repeat(out, distance, length);
    }
    out += length;
  }
  return fail(ENDS_WITH_MATCH, ip - start, 0, 0);
}

/** Repeats the `distance` (below 16) bytes before `out`: as many periods as fit in 16 bytes with every store. */
function repeat(out: usize, distance: usize, length: usize): void {
  const end = out + length;
  const bytes = v128.swizzle(v128.load(out - distance), v128.load(REPEATS + (distance << 4)));
  const step = <usize>load<u8>(distance, STEPS);
  do {
    v128.store(out, bytes);
    out += step;
  } while (out < end);
}
