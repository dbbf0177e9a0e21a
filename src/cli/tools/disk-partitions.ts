import type { ByteSource } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";

/** A stretch of a disk, in bytes. */
export interface DiskRange {
  readonly offset: number;
  readonly length: number;
}

const SECTOR_BYTES = 512;
const MBR_ENTRIES = { offset: 446, bytes: 16, count: 4 } as const;
const MBR_LINUX = 0x83;
const MBR_PROTECTIVE = 0xee;
const GPT_SIGNATURE = "EFI PART";
const MAX_GPT_BYTES = 1 << 20;

/** GPT partition types that hold no root filesystem. */
const OTHER_TYPES = new Set([
  "00000000-0000-0000-0000-000000000000", // unused
  "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", // swap
  "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", // EFI system
  "21686148-6449-6e6f-744e-656564454649", // BIOS boot
]);

/** What tells a filesystem: bytes, and where they are from its start on. */
const FILESYSTEMS = [
  { offset: 0x438, magic: Buffer.from([0x53, 0xef]) }, // ext2, ext3, ext4
  { offset: 0, magic: Buffer.from("XFSB") },
  { offset: 0x10040, magic: Buffer.from("_BHRfS_M") }, // btrfs
  { offset: 0x400, magic: Buffer.from([0x10, 0x20, 0xf5, 0xf2]) }, // f2fs
] as const;

/** The partitions of a disk that have a root filesystem, in the table's order; the whole disk if it is one itself; else none. */
export async function findRootFilesystems(disk: ByteSource): Promise<DiskRange[]> {
  const found: DiskRange[] = [];
  for (const range of await readPartitions(disk)) if (await hasFilesystem(disk, range)) found.push(range);
  const whole = { offset: 0, length: disk.size };
  return found.length === 0 && (await hasFilesystem(disk, whole)) ? [whole] : found;
}

async function readPartitions(disk: ByteSource): Promise<DiskRange[]> {
  if (disk.size < 2 * SECTOR_BYTES) return [];
  const mbr = Buffer.from(await disk.read(0, SECTOR_BYTES));
  if (mbr.readUInt16LE(510) !== 0xaa55) return [];
  const entries = Array.from({ length: MBR_ENTRIES.count }, (_, i) => {
    const at = MBR_ENTRIES.offset + i * MBR_ENTRIES.bytes;
    return { type: mbr[at + 4], firstSector: mbr.readUInt32LE(at + 8), sectors: mbr.readUInt32LE(at + 12) };
  });
  if (entries.some(({ type }) => type === MBR_PROTECTIVE)) return await readGpt(disk);
  return entries
    .filter(({ type, sectors }) => type === MBR_LINUX && sectors > 0)
    .map(({ firstSector, sectors }) => checked(disk, firstSector * SECTOR_BYTES, sectors * SECTOR_BYTES));
}

async function readGpt(disk: ByteSource): Promise<DiskRange[]> {
  const header = Buffer.from(await disk.read(SECTOR_BYTES, SECTOR_BYTES));
  if (header.toString("latin1", 0, 8) !== GPT_SIGNATURE) throw corrupt(`${disk.name}: no GPT at ${SECTOR_BYTES}, which its MBR announces`);
  const [count, entryBytes] = [header.readUInt32LE(80), header.readUInt32LE(84)];
  if (entryBytes < 128 || count * entryBytes > MAX_GPT_BYTES)
    throw corrupt(`${disk.name}: GPT of ${count} entries of ${entryBytes} bytes, expected at least 128 each and ${MAX_GPT_BYTES} together`);
  const { offset, length } = checked(disk, Number(header.readBigUInt64LE(72)) * SECTOR_BYTES, count * entryBytes);
  const table = Buffer.from(await disk.read(offset, length));
  const ranges: DiskRange[] = [];
  for (let at = 0; at < length; at += entryBytes) {
    if (OTHER_TYPES.has(guidText(table, at))) continue;
    const [first, last] = [Number(table.readBigUInt64LE(at + 32)), Number(table.readBigUInt64LE(at + 40))];
    ranges.push(checked(disk, first * SECTOR_BYTES, (last + 1 - first) * SECTOR_BYTES));
  }
  return ranges;
}

/** A GUID's first three groups are stored as little-endian numbers. */
function guidText(bytes: Buffer, at: number): string {
  const reversed = (start: number, end: number): string =>
    Buffer.from(bytes.subarray(at + start, at + end))
      .reverse()
      .toString("hex");
  const plain = (start: number, end: number): string => bytes.toString("hex", at + start, at + end);
  return [reversed(0, 4), reversed(4, 6), reversed(6, 8), plain(8, 10), plain(10, 16)].join("-");
}

function checked(disk: ByteSource, offset: number, length: number): DiskRange {
  if (Number.isSafeInteger(offset) && length > 0 && offset + length <= disk.size) return { offset, length };
  throw corrupt(`${disk.name}: partition table names [${offset}, ${offset + length}), the disk has ${disk.size} bytes`);
}

async function hasFilesystem(disk: ByteSource, range: DiskRange): Promise<boolean> {
  for (const { offset, magic } of FILESYSTEMS) {
    if (offset + magic.length > range.length) continue;
    if (magic.equals(await disk.read(range.offset + offset, magic.length))) return true;
  }
  return false;
}
