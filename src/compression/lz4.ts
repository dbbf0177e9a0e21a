import { corrupt } from "../errors.ts";

/*
 * LZ4 block format (no frame, no size prefix) for blocks of up to 64 KiB.
 *
 * The compressor makes the same choices as liblz4's `LZ4_compress_default` does for inputs of this size: one table of
 * 16-bit positions, greedy matching, and a stride that grows where nothing matches. Equal choices give equal bytes, so
 * blocks can be compared with those of other writers.
 *
 * Both directions work on DataViews, whose 32-bit accesses need no alignment, and allocate nothing.
 */

/** The largest input of one block: positions fit the 16-bit table. */
export const LZ4_MAX_BLOCK_BYTES = 65536;

const MIN_MATCH = 4;
/** The last bytes of a block are always literals. */
const LAST_LITERALS = 5;
/** No match starts closer to the end than this. */
const MATCH_FIND_LIMIT = 12;
const HASH_BITS = 13;
const HASH_SHIFT = 32 - HASH_BITS;
const HASH_PRIME = 2654435761 | 0;
/** After 2^6 misses the stride grows by one. */
const SKIP_TRIGGER = 6;
/** The highest value of a token's half; more follows in extra bytes. */
const NIBBLE_MAX = 15;

const positions = new Uint16Array(1 << HASH_BITS);

/** The most that a block of `inputBytes` can compress to. */
export function lz4Bound(inputBytes: number): number {
  return inputBytes + Math.floor(inputBytes / 255) + 16;
}

/**
 * Compresses `input[start, end)` (at most 64 KiB) to `output` at `at`; returns the offset behind the result.
 * `output` needs `lz4Bound(end - start)` bytes from `at`, and may be scribbled on in all of them.
 */
export function lz4Compress(input: DataView, start: number, end: number, output: DataView, at: number): number {
  const inputBytes = end - start;
  if (inputBytes > LZ4_MAX_BLOCK_BYTES) throw new RangeError(`an LZ4 block holds at most ${LZ4_MAX_BLOCK_BYTES} bytes, got ${inputBytes}`);
  if (start < 0 || inputBytes < 0 || end > input.byteLength || at < 0 || at + lz4Bound(inputBytes) > output.byteLength) {
    throw new RangeError(`no room to compress [${start}, ${end}) of ${input.byteLength} bytes to ${at} of ${output.byteLength}`);
  }
  if (inputBytes <= MATCH_FIND_LIMIT) return putLastLiterals(input, start, end, output, at);

  const table = positions;
  table.fill(0);
  const searchEnd = end - MATCH_FIND_LIMIT + 1;
  const matchEnd = end - LAST_LITERALS;
  let anchor = start;
  let ip = start + 1;
  let out = at;
  let nextWord = input.getInt32(ip, true);

  for (;;) {
    let match = 0;
    let word = 0;
    let next = ip;
    let stride = 1;
    let misses = 1 << SKIP_TRIGGER;
    do {
      word = nextWord;
      ip = next;
      next += stride;
      stride = misses++ >>> SKIP_TRIGGER;
      if (next > searchEnd) return putLastLiterals(input, anchor, end, output, out);
      const hash = Math.imul(word, HASH_PRIME) >>> HASH_SHIFT;
      match = start + table[hash];
      table[hash] = ip - start;
      nextWord = input.getInt32(next, true);
    } while (input.getInt32(match, true) !== word);

    while (ip > anchor && match > start && input.getUint8(ip - 1) === input.getUint8(match - 1)) {
      ip--;
      match--;
    }

    let token = out++;
    const literals = ip - anchor;
    let nibbles = 0;
    if (literals >= NIBBLE_MAX) {
      nibbles = NIBBLE_MAX << 4;
      out = putLength(output, out, literals - NIBBLE_MAX);
    } else {
      nibbles = literals << 4;
    }
    // Whole words: what is written too far is overwritten by the match and the last literals that always follow.
    for (let i = 0; i < literals; i += 4) output.setInt32(out + i, input.getInt32(anchor + i, true), true);
    out += literals;

    for (;;) {
      output.setUint16(out, ip - match, true);
      out += 2;

      ip += MIN_MATCH;
      match += MIN_MATCH;
      const length = countEqual(input, ip, match, matchEnd);
      ip += length;
      if (length >= NIBBLE_MAX) {
        output.setUint8(token, nibbles + NIBBLE_MAX);
        out = putLength(output, out, length - NIBBLE_MAX);
      } else {
        output.setUint8(token, nibbles + length);
      }

      anchor = ip;
      if (ip >= searchEnd) return putLastLiterals(input, anchor, end, output, out);

      table[Math.imul(input.getInt32(ip - 2, true), HASH_PRIME) >>> HASH_SHIFT] = ip - 2 - start;
      word = input.getInt32(ip, true);
      const hash = Math.imul(word, HASH_PRIME) >>> HASH_SHIFT;
      match = start + table[hash];
      table[hash] = ip - start;
      if (input.getInt32(match, true) !== word) break;
      token = out++;
      nibbles = 0;
    }
    nextWord = input.getInt32(++ip, true);
  }
}

/** How many bytes from `a` and from `b` are equal, `a` staying below `limit`. */
function countEqual(input: DataView, a: number, b: number, limit: number): number {
  const from = a;
  while (a < limit - 3) {
    const differing = input.getInt32(a, true) ^ input.getInt32(b, true);
    if (differing !== 0) return a - from + ((31 - Math.clz32(differing & -differing)) >>> 3);
    a += 4;
    b += 4;
  }
  while (a < limit && input.getUint8(a) === input.getUint8(b)) {
    a++;
    b++;
  }
  return a - from;
}

/** Writes a length beyond a token's half: a run of 255 and what is left. */
function putLength(output: DataView, at: number, length: number): number {
  while (length >= 255) {
    output.setUint8(at++, 255);
    length -= 255;
  }
  output.setUint8(at++, length);
  return at;
}

function putLastLiterals(input: DataView, anchor: number, end: number, output: DataView, at: number): number {
  const literals = end - anchor;
  if (literals >= NIBBLE_MAX) {
    output.setUint8(at++, NIBBLE_MAX << 4);
    at = putLength(output, at, literals - NIBBLE_MAX);
  } else {
    output.setUint8(at++, literals << 4);
  }
  for (; anchor < end - 3; anchor += 4, at += 4) output.setInt32(at, input.getInt32(anchor, true), true);
  for (; anchor < end; anchor++, at++) output.setUint8(at, input.getUint8(anchor));
  return at;
}

/**
 * Decompresses the block `input[start, end)` to exactly `output[at, limit)`.
 * Throws `CORRUPT` when the block is malformed or does not hold exactly that many bytes; never writes outside.
 */
export function lz4Decompress(input: DataView, start: number, end: number, output: DataView, at: number, limit: number): void {
  if (start < 0 || end > input.byteLength || at < 0 || limit > output.byteLength || start > end || at > limit) {
    throw new RangeError(
      `no room to decompress [${start}, ${end}) of ${input.byteLength} bytes to [${at}, ${limit}) of ${output.byteLength}`,
    );
  }
  let ip = start;
  let out = at;
  while (ip < end) {
    const token = input.getUint8(ip++);

    let literals = token >>> 4;
    if (literals < NIBBLE_MAX && end - ip > 16 && limit - out >= 16) {
      // Short and far from both ends, as most are: a fixed number of words needs no guess at the length.
      copyWord(input, ip, output, out);
      copyWord(input, ip + 8, output, out + 8);
      ip += literals;
      out += literals;
      const near = input.getUint16(ip, true);
      const short = token & NIBBLE_MAX;
      if (short < NIBBLE_MAX && near >= 8 && near <= out - at && limit - out >= 20) {
        copyWord(output, out - near, output, out);
        copyWord(output, out - near + 8, output, out + 8);
        output.setInt32(out + 16, output.getInt32(out - near + 16, true), true);
        ip += 2;
        out += short + MIN_MATCH;
        continue;
      }
    } else {
      if (literals === NIBBLE_MAX) {
        let more = 255;
        while (more === 255) {
          if (ip >= end) throw malformed("a literal length is cut off", ip - start);
          more = input.getUint8(ip++);
          literals += more;
        }
      }
      if (literals > end - ip) throw malformed(`${literals} literals, only ${end - ip} bytes left`, ip - start);
      if (literals > limit - out) throw malformed(`${literals} literals, room for ${limit - out}`, ip - start);
      if (literals + 7 <= end - ip && literals + 7 <= limit - out) {
        for (let i = 0; i < literals; i += 8) copyWord(input, ip + i, output, out + i);
      } else {
        for (let i = 0; i < literals; i++) output.setUint8(out + i, input.getUint8(ip + i));
      }
      ip += literals;
      out += literals;
      if (ip === end) {
        if (out !== limit) throw malformed(`ends after ${out - at} bytes, expected ${limit - at}`, ip - start);
        return;
      }
    }

    if (end - ip < 2) throw malformed("a match distance is cut off", ip - start);
    const distance = input.getUint16(ip, true);
    ip += 2;
    if (distance === 0 || distance > out - at) throw malformed(`match distance ${distance} after ${out - at} bytes`, ip - start);
    let length = (token & NIBBLE_MAX) + MIN_MATCH;
    if (length === NIBBLE_MAX + MIN_MATCH) {
      let more = 255;
      while (more === 255) {
        if (ip >= end) throw malformed("a match length is cut off", ip - start);
        more = input.getUint8(ip++);
        length += more;
      }
    }
    if (length > limit - out) throw malformed(`match of ${length} bytes, room for ${limit - out}`, ip - start);
    copyMatch(output, out, distance, length, limit);
    out += length;
  }
  throw malformed("does not end with literals", ip - start);
}

/** Repeats the bytes from `distance` before `out`; what lies behind, up to `limit`, may be scribbled on. */
function copyMatch(output: DataView, out: number, distance: number, length: number, limit: number): void {
  // A period shorter than a word repeats at its multiples too.
  let period = distance;
  while (period < 8) period += distance;
  const bytewise = length + 7 <= limit - out ? Math.min(length, period - distance) : length;
  let i = 0;
  for (; i < bytewise; i++) output.setUint8(out + i, output.getUint8(out + i - distance));
  for (; i < length; i += 8) copyWord(output, out + i - period, output, out + i);
}

/** Eight bytes in one load and one store: the engine keeps the BigInt in a register. */
function copyWord(from: DataView, fromAt: number, to: DataView, toAt: number): void {
  to.setBigInt64(toAt, from.getBigInt64(fromAt, true), true);
}

function malformed(what: string, at: number): Error {
  return corrupt(`LZ4 block: at byte ${at}: ${what}`);
}
