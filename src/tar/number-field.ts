import { corrupt } from "../errors.ts";

const SPACE = 0x20;
const ZERO = 0x30;

/**
 * A number of a header block: octal digits between spaces or NULs, or base-256 where the first byte has its top bit set
 * (a two's complement number in the remaining bits). An empty field is 0.
 * Throws `CORRUPT` for other bytes and for numbers that reach 2^53.
 */
export function parseNumber(block: Uint8Array, offset: number, length: number, field: string): number {
  if (block[offset] & 0x80) return parseBase256(block, offset, length, field);
  const end = offset + length;
  let at = offset;
  while (at < end && (block[at] === SPACE || block[at] === 0)) at++;
  let value = 0;
  for (; at < end; at++) {
    const byte = block[at];
    if (byte === SPACE || byte === 0) break;
    const digit = byte - ZERO;
    if (digit < 0 || digit > 7) throw corrupt(`${field} is ${fieldText(block, offset, length)}, expected an octal number`);
    value = value * 8 + digit;
  }
  return value;
}

function parseBase256(block: Uint8Array, offset: number, length: number, field: string): number {
  const first = block[offset] & 0x7f;
  let value = first & 0x40 ? first - 0x80 : first;
  for (let at = offset + 1; at < offset + length; at++) {
    value = value * 256 + block[at];
    if (!Number.isSafeInteger(value)) throw corrupt(`${field} is a base-256 number beyond 2^53`);
  }
  return value;
}

function fieldText(block: Uint8Array, offset: number, length: number): string {
  return JSON.stringify(Buffer.from(block.buffer, block.byteOffset + offset, length).toString("latin1"));
}
