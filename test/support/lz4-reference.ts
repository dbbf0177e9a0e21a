/*
 * LZ4 blocks the slow and obvious way, byte by byte: what the kernel is judged by. The encoder makes the choices of liblz4's
 * `LZ4_compress_default` for blocks of up to 64 KiB.
 */

const MIN_MATCH = 4;
const LAST_LITERALS = 5;

/** Encodes a block of at most 64 KiB. */
export function referenceCompress(plain: Uint8Array): Uint8Array {
  const word = (at: number): number => plain[at] | (plain[at + 1] << 8) | (plain[at + 2] << 16) | (plain[at + 3] << 24);
  const slot = (at: number): number => Math.imul(word(at), 2654435761) >>> 19;
  const positions = new Uint16Array(1 << 13);
  const code: number[] = [];
  const lastStart = plain.length - 12;
  let anchor = 0;
  let misses = 0;
  for (let at = 1; ;) {
    const stride = Math.max(1, (63 + misses++) >> 6);
    if (at + stride > lastStart + 1) break;
    const match = positions[slot(at)];
    positions[slot(at)] = at;
    if (word(match) !== word(at)) {
      at += stride;
      continue;
    }
    let start = at;
    while (start > anchor && match - (at - start) > 0 && plain[start - 1] === plain[match - (at - start) - 1]) start--;
    let end = at + MIN_MATCH;
    while (end < plain.length - LAST_LITERALS && plain[end] === plain[match + end - at]) end++;
    putSequence(code, plain.subarray(anchor, start), { distance: at - match, length: end - start });
    at = end;
    anchor = end;
    misses = -1; // where a match ends another may begin at once; that try does not count
    positions[slot(end - 2)] = end - 2;
  }
  putSequence(code, plain.subarray(anchor));
  return Uint8Array.from(code);
}

function putSequence(code: number[], literals: Uint8Array, match?: { readonly distance: number; readonly length: number }): void {
  const length = match === undefined ? 0 : match.length - MIN_MATCH;
  code.push((Math.min(15, literals.length) << 4) | Math.min(15, length));
  putLength(code, literals.length);
  code.push(...literals);
  if (match === undefined) return;
  code.push(match.distance & 0xff, match.distance >> 8);
  putLength(code, length);
}

function putLength(code: number[], length: number): void {
  if (length < 15) return;
  let left = length - 15;
  for (; left >= 255; left -= 255) code.push(255);
  code.push(left);
}

/** Decodes a block, or gives undefined for one that is malformed or does not hold exactly `bytes`. */
export function referenceDecompress(code: Uint8Array, bytes: number): Uint8Array | undefined {
  const plain: number[] = [];
  let at = 0;
  const lengthOf = (nibble: number): number => {
    let length = nibble;
    for (let more = nibble === 15 ? 255 : 0; more === 255; length += more) more = at < code.length ? code[at++] : Infinity;
    return length;
  };
  while (at < code.length) {
    const token = code[at++];
    const literals = lengthOf(token >> 4);
    if (literals > code.length - at || literals > bytes - plain.length) return undefined;
    for (let i = 0; i < literals; i++) plain.push(code[at++]);
    if (at === code.length) return plain.length === bytes ? Uint8Array.from(plain) : undefined;
    if (at + 2 > code.length) return undefined;
    const distance = code[at] | (code[at + 1] << 8);
    at += 2;
    const length = lengthOf(token & 15) + MIN_MATCH;
    if (distance === 0 || distance > plain.length || length > bytes - plain.length) return undefined;
    for (let i = 0; i < length; i++) plain.push(plain[plain.length - distance]);
  }
  return undefined;
}
