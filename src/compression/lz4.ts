import { corrupt } from "../errors.ts";

/*
 * LZ4 block format (no frame, no size prefix) for blocks of up to 64 KiB.
 *
 * The compressor makes the same choices as liblz4's `LZ4_compress_default` does for inputs of this size: one table of
 * 16-bit positions, greedy matching, and a stride that grows where nothing matches. Equal choices give equal bytes, so
 * blocks can be compared with those of other writers.
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
const HASH_PRIME = 2654435761;
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
 * `output` needs `lz4Bound(end - start)` bytes from `at`.
 */
export function lz4Compress(input: Uint8Array, start: number, end: number, output: Uint8Array, at: number): number {
  const inputBytes = end - start;
  if (inputBytes > LZ4_MAX_BLOCK_BYTES) throw new RangeError(`an LZ4 block holds at most ${LZ4_MAX_BLOCK_BYTES} bytes, got ${inputBytes}`);
  if (start < 0 || inputBytes < 0 || end > input.length || at < 0 || at + lz4Bound(inputBytes) > output.length) {
    throw new RangeError(`no room to compress [${start}, ${end}) of ${input.length} bytes to ${at} of ${output.length}`);
  }
  if (inputBytes <= MATCH_FIND_LIMIT) return putLastLiterals(input, start, end, output, at);

  const table = positions.fill(0);
  const lastMatchStart = end - MATCH_FIND_LIMIT;
  const matchEnd = end - LAST_LITERALS;
  let anchor = start;
  let ip = start + 1;
  let out = at;
  table[hashAt(input, start)] = 0;
  let nextHash = hashAt(input, ip);

  for (;;) {
    let match = 0;
    let next = ip;
    let stride = 1;
    let misses = 1 << SKIP_TRIGGER;
    do {
      const hash = nextHash;
      ip = next;
      next += stride;
      stride = misses++ >>> SKIP_TRIGGER;
      if (next > lastMatchStart + 1) return putLastLiterals(input, anchor, end, output, out);
      match = start + table[hash];
      nextHash = hashAt(input, next);
      table[hash] = ip - start;
    } while (
      input[match] !== input[ip] ||
      input[match + 1] !== input[ip + 1] ||
      input[match + 2] !== input[ip + 2] ||
      input[match + 3] !== input[ip + 3]
    );

    while (ip > anchor && match > start && input[ip - 1] === input[match - 1]) {
      ip--;
      match--;
    }

    let token = out++;
    const literals = ip - anchor;
    if (literals >= NIBBLE_MAX) {
      output[token] = NIBBLE_MAX << 4;
      out = putLength(output, out, literals - NIBBLE_MAX);
      if (literals > 32) output.set(input.subarray(anchor, ip), out);
      else for (let i = 0; i < literals; i++) output[out + i] = input[anchor + i];
      out += literals;
    } else {
      output[token] = literals << 4;
      while (anchor < ip) output[out++] = input[anchor++];
    }

    for (;;) {
      const distance = ip - match;
      output[out] = distance;
      output[out + 1] = distance >>> 8;
      out += 2;

      ip += MIN_MATCH;
      match += MIN_MATCH;
      const from = ip;
      while (ip < matchEnd && input[ip] === input[match]) {
        ip++;
        match++;
      }
      const length = ip - from;
      if (length >= NIBBLE_MAX) {
        output[token] += NIBBLE_MAX;
        out = putLength(output, out, length - NIBBLE_MAX);
      } else {
        output[token] += length;
      }

      anchor = ip;
      if (ip > lastMatchStart) return putLastLiterals(input, anchor, end, output, out);

      table[hashAt(input, ip - 2)] = ip - 2 - start;
      const hash = hashAt(input, ip);
      match = start + table[hash];
      table[hash] = ip - start;
      if (
        input[match] !== input[ip] ||
        input[match + 1] !== input[ip + 1] ||
        input[match + 2] !== input[ip + 2] ||
        input[match + 3] !== input[ip + 3]
      ) {
        break;
      }
      token = out++;
      output[token] = 0;
    }
    nextHash = hashAt(input, ++ip);
  }
}

function hashAt(input: Uint8Array, at: number): number {
  const word = input[at] | (input[at + 1] << 8) | (input[at + 2] << 16) | (input[at + 3] << 24);
  return Math.imul(word, HASH_PRIME) >>> HASH_SHIFT;
}

/** Writes a length beyond a token's half: a run of 255 and what is left. */
function putLength(output: Uint8Array, at: number, length: number): number {
  while (length >= 255) {
    output[at++] = 255;
    length -= 255;
  }
  output[at++] = length;
  return at;
}

function putLastLiterals(input: Uint8Array, anchor: number, end: number, output: Uint8Array, at: number): number {
  const literals = end - anchor;
  if (literals >= NIBBLE_MAX) {
    output[at++] = NIBBLE_MAX << 4;
    at = putLength(output, at, literals - NIBBLE_MAX);
  } else {
    output[at++] = literals << 4;
  }
  output.set(input.subarray(anchor, end), at);
  return at + literals;
}

/**
 * Decompresses the block `input[start, end)` to exactly `output[at, limit)`.
 * Throws `CORRUPT` when the block is malformed or does not hold exactly that many bytes; never writes outside.
 */
export function lz4Decompress(input: Uint8Array, start: number, end: number, output: Uint8Array, at: number, limit: number): void {
  if (start < 0 || end > input.length || at < 0 || limit > output.length || start > end || at > limit) {
    throw new RangeError(`no room to decompress [${start}, ${end}) of ${input.length} bytes to [${at}, ${limit}) of ${output.length}`);
  }
  let ip = start;
  let out = at;
  while (ip < end) {
    const token = input[ip++];

    let literals = token >>> 4;
    if (literals === NIBBLE_MAX) {
      let more = 255;
      while (more === 255) {
        if (ip >= end) throw malformed("a literal length is cut off", ip - start);
        more = input[ip++];
        literals += more;
      }
    }
    if (literals > end - ip) throw malformed(`${literals} literals, only ${end - ip} bytes left`, ip - start);
    if (literals > limit - out) throw malformed(`${literals} literals, room for ${limit - out}`, ip - start);
    if (literals > 64) {
      output.set(input.subarray(ip, ip + literals), out);
      ip += literals;
      out += literals;
    } else {
      for (const stop = ip + literals; ip < stop; ) output[out++] = input[ip++];
    }
    if (ip === end) {
      if (out !== limit) throw malformed(`ends after ${out - at} bytes, expected ${limit - at}`, ip - start);
      return;
    }

    if (end - ip < 2) throw malformed("a match distance is cut off", ip - start);
    const distance = input[ip] | (input[ip + 1] << 8);
    ip += 2;
    if (distance === 0 || distance > out - at) throw malformed(`match distance ${distance} after ${out - at} bytes`, ip - start);
    let length = (token & NIBBLE_MAX) + MIN_MATCH;
    if (length === NIBBLE_MAX + MIN_MATCH) {
      let more = 255;
      while (more === 255) {
        if (ip >= end) throw malformed("a match length is cut off", ip - start);
        more = input[ip++];
        length += more;
      }
    }
    if (length > limit - out) throw malformed(`match of ${length} bytes, room for ${limit - out}`, ip - start);
    let from = out - distance;
    if (distance >= length && length > 64) {
      output.copyWithin(out, from, from + length);
      out += length;
    } else if (distance === 1 && length > 64) {
      output.fill(output[from], out, out + length);
      out += length;
    } else {
      for (const stop = out + length; out < stop; ) output[out++] = output[from++];
    }
  }
  throw malformed("does not end with literals", ip - start);
}

function malformed(what: string, at: number): Error {
  return corrupt(`LZ4 block: at byte ${at}: ${what}`);
}
