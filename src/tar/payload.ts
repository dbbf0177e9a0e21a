import { SubSource, type ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";

/*
 * The tar around a layer's bytes: one member, named by a pax header that carries its size, so that a registry's tools see an
 * ordinary tar layer while readers find the payload at a fixed offset. See docs/formats/zfile.md, "The tar wrapper".
 *
 *   [pax header 512] [pax record 512] [member header 512] [payload …] [zeros to 512] [two zero blocks]
 */

const BLOCK_BYTES = 512;

/** Offset of the payload in what `payloadHead` begins. */
export const PAYLOAD_OFFSET = 3 * BLOCK_BYTES;

/** Extended headers in front of the member, and the size of each, that are read before giving up. */
const MAX_EXTENSIONS = 8;
const MAX_EXTENSION_BYTES = 64 << 10;

/** The 1536 bytes in front of a payload of this size. */
export function payloadHead(payloadBytes: number): Uint8Array {
  if (!Number.isSafeInteger(payloadBytes) || payloadBytes < 0) throw new LazyError("USAGE", `tar payload of ${payloadBytes} bytes`);
  const head = Buffer.alloc(PAYLOAD_OFFSET);
  const record = paxRecord("size", String(payloadBytes));
  head.write("overlaybd.pax", 0, "latin1");
  head.write(paddedOctal(record.length, 11), 124, "latin1");
  putKindAndChecksum(head.subarray(0, BLOCK_BYTES), "x");

  head.write(record, BLOCK_BYTES, "latin1");

  const member = head.subarray(2 * BLOCK_BYTES);
  member.write("overlaybd.commit", 0, "latin1");
  member.write(paddedOctal(0o100644, 6), 100, "latin1");
  member.write(paddedOctal(0, 6), 108, "latin1"); // uid
  member.write(paddedOctal(0, 6), 116, "latin1"); // gid
  member.write(paddedOctal(0, 11), 124, "latin1"); // the size is in the pax record alone
  member.write(paddedOctal(0, 11), 136, "latin1"); // mtime
  member.write("root", 265, "latin1");
  member.write("root", 297, "latin1");
  putKindAndChecksum(member, "0");
  return head;
}

/** The bytes behind a payload of this size: zeros to a whole block, and the two zero blocks that end a tar. */
export function payloadTail(payloadBytes: number): Uint8Array {
  const padding = (BLOCK_BYTES - (payloadBytes % BLOCK_BYTES)) % BLOCK_BYTES;
  return new Uint8Array(padding + 2 * BLOCK_BYTES);
}

/** `<length> <key>=<value>\n`, where the length counts its own digits. */
export function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return `${length}${rest}`;
}

/** Octal right-aligned with spaces, one space behind it. */
function paddedOctal(value: number, width: number): string {
  return `${value.toString(8).padStart(width)} `;
}

function putKindAndChecksum(header: Buffer, kind: string): void {
  header.write(kind, 156, "latin1");
  header.write("ustar\x0000", 257, "latin1");
  header.write(`${paddedOctal(checksum(header, false), 6)}\0`, 148, "latin1");
}

/** The sum of a header's bytes, those of the checksum field taken as spaces. */
function checksum(header: Uint8Array, signed: boolean): number {
  let sum = 8 * 32;
  for (let i = 0; i < BLOCK_BYTES; i++) {
    if (i >= 148 && i < 156) continue;
    sum += signed ? (header[i] << 24) >> 24 : header[i];
  }
  return sum;
}

/**
 * The payload of a layer blob: the first member where the source is a tar, else the source itself.
 * Throws `CORRUPT` where a tar's headers are damaged or its member does not fit. Closing the payload closes the source.
 */
export async function openTarPayload(source: ByteSource): Promise<ByteSource> {
  if (source.size < BLOCK_BYTES) return source;
  // One read for the usual case: both headers and the record between them.
  const head = await source.read(0, Math.min(PAYLOAD_OFFSET, source.size));
  if (!isUstar(head) || !checksumHolds(head)) return source;

  let paxSize: number | undefined;
  let at = 0;
  for (let extensions = 0; ; extensions++) {
    if (at + BLOCK_BYTES > source.size) throw corrupt(`${source.name}: tar ends at ${source.size}, expected a header at ${at}`);
    const header = at + BLOCK_BYTES <= head.length ? head.subarray(at, at + BLOCK_BYTES) : await source.read(at, BLOCK_BYTES);
    if (!isUstar(header)) throw corrupt(`${source.name}: tar header at ${at}: no ustar magic`);
    if (!checksumHolds(header))
      throw corrupt(
        `${source.name}: tar header at ${at}: checksum is ${octalText(header, 148, 8)}, expected ${checksum(header, false).toString(8)}`,
      );
    const size = parseOctal(header, 124, 12, `${source.name}: tar header at ${at}: size`);
    at += BLOCK_BYTES;
    const kind = String.fromCharCode(header[156]);
    if (!"xgLK".includes(kind)) {
      checkMemberKind(kind, `${source.name}: tar header at ${at - BLOCK_BYTES}`);
      return subPayload(source, at, paxSize || size);
    }
    if (extensions === MAX_EXTENSIONS)
      throw corrupt(`${source.name}: tar has more than ${MAX_EXTENSIONS} extended headers before its first member`);
    if (size > MAX_EXTENSION_BYTES)
      throw corrupt(`${source.name}: tar extended header at ${at} of ${size} bytes, expected at most ${MAX_EXTENSION_BYTES}`);
    if (at + size > source.size)
      throw corrupt(`${source.name}: tar extended header at [${at}, ${at + size}) goes beyond the end, at ${source.size}`);
    if (kind === "x" || kind === "g") {
      const records = at + size <= head.length ? head.subarray(at, at + size) : await source.read(at, size);
      paxSize = parsePaxSize(records, `${source.name}: tar pax records at ${at}`) ?? paxSize;
    }
    at += Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
  }
}

function subPayload(source: ByteSource, offset: number, size: number): ByteSource {
  if (offset + size > source.size) {
    throw corrupt(`${source.name}: tar member is at [${offset}, ${offset + size}), the file ends at ${source.size}`);
  }
  return new SubSource(source, offset, size);
}

/** Magic `ustar`, version `00`; GNU's own variant has spaces there and is not a wrapper. */
function isUstar(header: Uint8Array): boolean {
  const text = Buffer.from(header.buffer, header.byteOffset, header.byteLength);
  return text.toString("latin1", 257, 262) === "ustar" && text.toString("latin1", 263, 265) === "00";
}

function checksumHolds(header: Uint8Array): boolean {
  const field = octalText(header, 148, 8);
  const stated = /^[0-7]+$/.test(field) ? Number.parseInt(field, 8) : Number.NaN;
  return stated === checksum(header, false) || stated === checksum(header, true);
}

function checkMemberKind(kind: string, where: string): void {
  if (kind !== "0" && kind !== "\0")
    throw corrupt(`${where}: first member has type ${JSON.stringify(kind)}, expected a regular file with the layer`);
}

/** A number field without its padding. */
function octalText(header: Uint8Array, at: number, length: number): string {
  const field = Buffer.from(header.buffer, header.byteOffset + at, length).toString("latin1");
  return field.split("\0")[0].trim();
}

function parseOctal(header: Uint8Array, at: number, length: number, what: string): number {
  const field = octalText(header, at, length);
  if (field === "") return 0;
  if (!/^[0-7]+$/.test(field)) throw corrupt(`${what} is ${JSON.stringify(field)}, expected octal digits`);
  return Number.parseInt(field, 8);
}

/** The `size` of pax records; undefined where they do not give one. */
function parsePaxSize(records: Uint8Array, where: string): number | undefined {
  const all = Buffer.from(records.buffer, records.byteOffset, records.byteLength);
  let size: number | undefined;
  for (let at = 0; at < all.length && all[at] !== 0;) {
    const space = all.indexOf(0x20, at);
    const digits = space < 0 ? "" : all.toString("latin1", at, space);
    const end = at + Number(digits);
    if (!/^[1-9][0-9]{0,9}$/.test(digits) || end > all.length || end <= space + 1 || all[end - 1] !== 0x0a) {
      throw corrupt(`${where}: no record of the form "length key=value" at ${at}`);
    }
    const [key, value = ""] = splitOnce(all.toString("latin1", space + 1, end - 1));
    if (key === "size") {
      size = Number(value);
      if (!/^[0-9]+$/.test(value) || !Number.isSafeInteger(size))
        throw corrupt(`${where}: size is ${JSON.stringify(value)}, expected digits`);
    }
    at = end;
  }
  return size;
}

function splitOnce(record: string): [string, string?] {
  const equals = record.indexOf("=");
  return equals < 0 ? [record] : [record.slice(0, equals), record.slice(equals + 1)];
}
