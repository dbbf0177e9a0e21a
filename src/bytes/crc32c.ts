const POLYNOMIAL = 0x82f63b78; // Castagnoli, reflected

/** Eight tables of 256: table k advances a byte k positions further (slicing-by-8). */
const TABLES = makeTables();

function makeTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let byte = 0; byte < 256; byte++) {
    let crc = tables[byte];
    for (let table = 1; table < 8; table++) {
      crc = tables[crc & 0xff] ^ (crc >>> 8);
      tables[table * 256 + byte] = crc;
    }
  }
  return tables;
}

/**
 * The CRC-32C register after `bytes`, started at `seed`, with no inversion before or after.
 * This is the form that ZFile, gzip indexes and ext4 use; the usual CRC-32C is `~crc32cRaw(~0, bytes)`.
 */
export function crc32cRaw(seed: number, bytes: Uint8Array, start = 0, end = bytes.length): number {
  const t = TABLES;
  let crc = seed | 0;
  let at = start;
  for (const stop = end - 7; at < stop; at += 8) {
    crc ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    crc =
      t[1792 + (crc & 0xff)] ^
      t[1536 + ((crc >>> 8) & 0xff)] ^
      t[1280 + ((crc >>> 16) & 0xff)] ^
      t[1024 + (crc >>> 24)] ^
      t[768 + bytes[at + 4]] ^
      t[512 + bytes[at + 5]] ^
      t[256 + bytes[at + 6]] ^
      t[bytes[at + 7]];
  }
  for (; at < end; at++) crc = t[(crc ^ bytes[at]) & 0xff] ^ (crc >>> 8);
  return crc >>> 0;
}
