import { crc32cRaw } from "../../bytes/crc32c.ts";

const word = new Uint8Array(8);
/** Stands for a 16-bit checksum field. */
const ZEROS = new Uint8Array(2);
const wordView = new DataView(word.buffer);

function crcOfU32(seed: number, value: number): number {
  wordView.setUint32(0, value, true);
  return crc32cRaw(seed, word, 0, 4);
}

/** The register that all metadata checksums of a filesystem start from. */
export function filesystemSeed(uuid: Uint8Array): number {
  return crc32cRaw(0xffffffff, uuid);
}

/** The seed of everything that belongs to one inode: its own record, directory blocks, extent blocks. */
export function inodeSeed(filesystem: number, inode: number, generation: number): number {
  wordView.setUint32(0, inode, true);
  wordView.setUint32(4, generation, true);
  return crc32cRaw(filesystem, word);
}

/** The checksum of an inode record; its two checksum fields count as zero. */
export function inodeChecksum(seed: number, record: Uint8Array): number {
  const beforeLow = crc32cRaw(seed, record, 0, 0x7c);
  const beforeHigh = crc32cRaw(crc32cRaw(beforeLow, ZEROS), record, 0x7e, Math.min(0x82, record.length));
  return record.length > 0x82 ? crc32cRaw(crc32cRaw(beforeHigh, ZEROS), record, 0x84) : beforeHigh;
}

/** The checksum of an extended attribute block; its checksum field (bytes 16–19) counts as zero. */
export function xattrBlockChecksum(filesystem: number, block: number, bytes: Uint8Array): number {
  wordView.setBigUint64(0, BigInt(block), true);
  const seed = crc32cRaw(filesystem, word);
  const head = crc32cRaw(seed, bytes, 0, 16);
  return crc32cRaw(crcOfU32(head, 0), bytes, 20);
}

/** The checksum of an index node of a directory: its used entries, then the tail's reserved word, then a zero. */
export function indexNodeChecksum(seed: number, bytes: Uint8Array, countOffset: number, count: number, limit: number): number {
  const tail = countOffset + limit * 8;
  const entries = crc32cRaw(seed, bytes, 0, countOffset + count * 8);
  return crcOfU32(crc32cRaw(entries, bytes, tail, tail + 4), 0);
}

/** The 16-bit checksum of a group descriptor where the filesystem has metadata checksums. */
export function groupChecksum(filesystem: number, group: number, descriptor: Uint8Array): number {
  const clean = new Uint8Array(descriptor);
  clean.fill(0, 0x1e, 0x20);
  return crc32cRaw(crcOfU32(filesystem, group), clean) & 0xffff;
}

/** The older checksum of a group descriptor (feature uninit_bg): CRC-16 of UUID, group number and descriptor. */
export function groupCrc16(uuid: Uint8Array, group: number, descriptor: Uint8Array): number {
  wordView.setUint32(0, group, true);
  let crc = crc16(0xffff, uuid);
  crc = crc16(crc, word.subarray(0, 4));
  crc = crc16(crc, descriptor.subarray(0, 0x1e));
  return crc16(crc, descriptor.subarray(0x20));
}

const CRC16_POLYNOMIAL = 0xa001; // x^16 + x^15 + x^2 + 1, reflected

function crc16(seed: number, bytes: Uint8Array): number {
  let crc = seed;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CRC16_POLYNOMIAL : crc >>> 1;
  }
  return crc;
}
