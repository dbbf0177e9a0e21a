import { unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";

/** Hash versions as the superblock and directory roots name them; the unsigned forms are 3 higher. */
export const HASH_HALF_MD4 = 1;
const HASH_LEGACY = 0;
const HASH_TEA = 2;
/** Hashes end below this; the value itself means "end of directory". */
const END_OF_DIRECTORY = 0x7fffffff;

export interface DirectoryHash {
  readonly version: number;
  /** Characters above 127 count as negative. */
  readonly signed: boolean;
  /** Four words; all zero means the algorithm's own constants. */
  readonly seed: Uint32Array;
}

/** The major hash of a name, with its lowest bit clear. See docs/formats/ext4.md, "Hashed directories". */
export function hashName(name: ByteString, hash: DirectoryHash): number {
  let major: number;
  if (hash.version === HASH_LEGACY) major = legacyHash(name, hash.signed);
  else if (hash.version === HASH_HALF_MD4) major = halfMd4Hash(name, hash);
  else if (hash.version === HASH_TEA) major = teaHash(name, hash);
  else throw unsupported(`directory hash version ${hash.version}: expected 0, 1 or 2`);
  major = (major & ~1) >>> 0;
  return major === (END_OF_DIRECTORY << 1) >>> 0 ? ((END_OF_DIRECTORY - 1) << 1) >>> 0 : major;
}

function charAt(name: ByteString, at: number, signed: boolean): number {
  const byte = name.charCodeAt(at);
  return signed && byte > 127 ? byte - 256 : byte;
}

function legacyHash(name: ByteString, signed: boolean): number {
  let hash0 = 0x12a3fe2d;
  let hash1 = 0x37abe8f9;
  for (let at = 0; at < name.length; at++) {
    let hash = (hash1 + (hash0 ^ Math.imul(charAt(name, at, signed), 7152373))) >>> 0;
    if (hash & 0x80000000) hash = (hash - 0x7fffffff) >>> 0;
    hash1 = hash0;
    hash0 = hash;
  }
  return (hash0 << 1) >>> 0;
}

/** Packs a piece of the name into `words`, padded with its length repeated. */
function packWords(words: Uint32Array, count: number, name: ByteString, from: number, signed: boolean): void {
  const length = name.length - from;
  let pad = length | (length << 8);
  pad |= pad << 16;
  let value = pad;
  let word = 0;
  const end = Math.min(length, count * 4);
  for (let at = 0; at < end; at++) {
    value = (charAt(name, from + at, signed) + (value << 8)) | 0;
    if (at % 4 === 3) {
      words[word++] = value;
      value = pad;
    }
  }
  if (word < count) words[word++] = value;
  while (word < count) words[word++] = pad;
}

const words = new Uint32Array(8);
const state = new Uint32Array(4);

function startState(seed: Uint32Array): void {
  if (seed[0] || seed[1] || seed[2] || seed[3]) state.set(seed);
  else state.set([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]);
}

function halfMd4Hash(name: ByteString, hash: DirectoryHash): number {
  startState(hash.seed);
  for (let from = 0; from < name.length; from += 32) {
    packWords(words, 8, name, from, hash.signed);
    halfMd4Transform();
  }
  return state[1];
}

const ROUND_ORDER: readonly (readonly number[])[] = [
  [0, 1, 2, 3, 4, 5, 6, 7],
  [1, 3, 5, 7, 0, 2, 4, 6],
  [3, 7, 2, 6, 1, 5, 0, 4],
];
const ROUND_SHIFTS: readonly (readonly number[])[] = [
  [3, 7, 11, 19],
  [3, 5, 9, 13],
  [3, 9, 11, 15],
];
const ROUND_CONSTANTS = [0, 0x5a827999, 0x6ed9eba1];

/** MD4's three rounds over 8 words instead of 16. */
function halfMd4Transform(): void {
  let [a, b, c, d] = [state[0] | 0, state[1] | 0, state[2] | 0, state[3] | 0];
  for (let round = 0; round < 3; round++) {
    const order = ROUND_ORDER[round];
    const shifts = ROUND_SHIFTS[round];
    for (let step = 0; step < 8; step++) {
      const mixed = round === 0 ? d ^ (b & (c ^ d)) : round === 1 ? (b & c) + ((b ^ c) & d) : b ^ c ^ d;
      const sum = (a + mixed + words[order[step]] + ROUND_CONSTANTS[round]) | 0;
      const shift = shifts[step % 4];
      a = d;
      d = c;
      c = b;
      b = (sum << shift) | (sum >>> (32 - shift));
    }
  }
  state[0] = state[0] + a;
  state[1] = state[1] + b;
  state[2] = state[2] + c;
  state[3] = state[3] + d;
}

function teaHash(name: ByteString, hash: DirectoryHash): number {
  startState(hash.seed);
  for (let from = 0; from < name.length; from += 16) {
    packWords(words, 4, name, from, hash.signed);
    teaTransform();
  }
  return state[0];
}

function teaTransform(): void {
  let b0 = state[0] | 0;
  let b1 = state[1] | 0;
  let sum = 0;
  for (let round = 0; round < 16; round++) {
    sum = (sum + 0x9e3779b9) | 0;
    b0 = (b0 + (((b1 << 4) + words[0]) ^ (b1 + sum) ^ ((b1 >>> 5) + words[1]))) | 0;
    b1 = (b1 + (((b0 << 4) + words[2]) ^ (b0 + sum) ^ ((b0 >>> 5) + words[3]))) | 0;
  }
  state[0] = state[0] + b0;
  state[1] = state[1] + b1;
}
