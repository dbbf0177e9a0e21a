/*
 * A decoder that knows nothing of windows and single bits starts in the middle of DEFLATE data all the same when it is first
 * given blocks (RFC 1951, section 3.2) that have the window as their content and end where the bits begin:
 *
 *   [stored block: the window] [blocks without content, as many bits as are needed] [the byte's bits that belong to the data]
 */

/** A block in Huffman codes of fixed lengths, without content: 10 bits. Bits are in the order in which they are read. */
const FIXED_BLOCK = ["0", "10", "0000000"].join(""); // not the last one; fixed codes; the end

/** Order in which a block gives the lengths of the codes for its code lengths. */
const LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** Without content as well, but with an odd number of bits, 97: codes of one bit each for the symbols 255 and 256. */
const ODD_BLOCK = [
  ["0", "01"], // not the last one; codes of its own
  ["00000", "00000", "1111"], // 257 literal codes, 1 distance code, 19 code length codes
  LENGTH_ORDER.map((symbol) => (symbol === 18 ? "100" : symbol <= 1 ? "010" : "000")), // 18: 0, 0: 10, 1: 11
  ["0", lowestFirst(138 - 11, 7), "0", lowestFirst(117 - 11, 7)], // 255 literals without a code
  ["11", "11"], // two codes of length 1
  "10", // no distance code
  "1", // the end
]
  .flat()
  .join("");

function lowestFirst(value: number, bits: number): string {
  return Array.from({ length: bits }, (_, bit) => (value >> bit) & 1).join("");
}

/** Bits that end where the highest `bits` bits of a byte begin. */
function alignment(bits: number): string {
  const wanted = (8 - bits) % 8;
  const odd = wanted % 2 === 1 ? ODD_BLOCK : "";
  const pairs = (((wanted - odd.length) / 2) % 4) + 4;
  return odd + FIXED_BLOCK.repeat(pairs % 4);
}

/**
 * DEFLATE data with the content `window`, after which decoding goes on with the highest `bits` bits of `byte` and the bytes
 * that follow it.
 */
export function resumingPrefix({ bits, window }: { readonly bits: number; readonly window: Uint8Array }, byte: number): Uint8Array {
  const size = Uint8Array.of(window.length & 0xff, window.length >> 8);
  const block = Buffer.concat([Uint8Array.of(0), size, size.map((value) => ~value), window]);
  if (bits === 0) return block;
  const filling = alignment(bits) + lowestFirst(byte >> (8 - bits), bits);
  return Buffer.concat([block, Uint8Array.from(filling.match(/.{8}/g) ?? [], packed)]);
}

function packed(bits: string): number {
  return Number.parseInt(bits.split("").reverse().join(""), 2);
}
