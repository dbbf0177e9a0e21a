import { corrupt } from "../../errors.ts";
import { groupChecksum, groupCrc16 } from "./checksum.ts";
import { groupStruct, RO_COMPAT } from "./layout.ts";
import type { Superblock } from "./superblock.ts";

/** Where a block group keeps its metadata, and its counters. */
export interface Group {
  blockBitmap: number;
  inodeBitmap: number;
  inodeTable: number;
  freeBlocks: number;
  freeInodes: number;
  usedDirectories: number;
  /** `GROUP_FLAG` bits. */
  flags: number;
  /** Inodes at the table's end that were never used. */
  unusedInodes: number;
  blockBitmapCsum: number;
  inodeBitmapCsum: number;
}

/** Decodes the descriptor table, checking each descriptor's checksum where there is one. */
export function decodeGroups(table: Uint8Array, superblock: Superblock, where: string): Group[] {
  // Without checksums the flags have no meaning.
  const hasChecksum = (superblock.fields.roCompat & (RO_COMPAT.metadataCsum | RO_COMPAT.gdtCsum)) !== 0;
  return Array.from({ length: superblock.groups }, (_, group) => {
    const bytes = Buffer.alloc(groupStruct.size);
    const stored = table.subarray(group * superblock.descriptorBytes, (group + 1) * superblock.descriptorBytes);
    bytes.set(stored.subarray(0, groupStruct.size));
    const fields = groupStruct.decode(bytes);
    const expected = checksumOf(stored, superblock, group);
    if (expected !== undefined && expected !== fields.checksum) {
      throw corrupt(
        `${where}: descriptor of group ${group} has checksum 0x${fields.checksum.toString(16)}, expected 0x${expected.toString(16)}`,
      );
    }
    return {
      blockBitmap: fields.blockBitmapLow + fields.blockBitmapHigh * 2 ** 32,
      inodeBitmap: fields.inodeBitmapLow + fields.inodeBitmapHigh * 2 ** 32,
      inodeTable: fields.inodeTableLow + fields.inodeTableHigh * 2 ** 32,
      freeBlocks: fields.freeBlocksLow + fields.freeBlocksHigh * 65536,
      freeInodes: fields.freeInodesLow + fields.freeInodesHigh * 65536,
      usedDirectories: fields.usedDirectoriesLow + fields.usedDirectoriesHigh * 65536,
      flags: hasChecksum ? fields.flags : 0,
      unusedInodes: fields.unusedInodesLow + fields.unusedInodesHigh * 65536,
      blockBitmapCsum: fields.blockBitmapCsumLow + fields.blockBitmapCsumHigh * 65536,
      inodeBitmapCsum: fields.inodeBitmapCsumLow + fields.inodeBitmapCsumHigh * 65536,
    };
  });
}

function checksumOf(stored: Uint8Array, superblock: Superblock, group: number): number | undefined {
  if (superblock.hasMetadataCsum) return groupChecksum(superblock.seed, group, stored);
  if (superblock.fields.roCompat & RO_COMPAT.gdtCsum) return groupCrc16(superblock.fields.uuid, group, stored);
  return undefined;
}

/** Writes a descriptor in place, with its checksum. */
export function encodeGroup(group: Group, number: number, superblock: Superblock, table: Uint8Array, offset: number): void {
  const bytes = groupStruct.encode({
    blockBitmapLow: group.blockBitmap % 2 ** 32,
    blockBitmapHigh: Math.floor(group.blockBitmap / 2 ** 32),
    inodeBitmapLow: group.inodeBitmap % 2 ** 32,
    inodeBitmapHigh: Math.floor(group.inodeBitmap / 2 ** 32),
    inodeTableLow: group.inodeTable % 2 ** 32,
    inodeTableHigh: Math.floor(group.inodeTable / 2 ** 32),
    freeBlocksLow: group.freeBlocks & 0xffff,
    freeBlocksHigh: group.freeBlocks >>> 16,
    freeInodesLow: group.freeInodes & 0xffff,
    freeInodesHigh: group.freeInodes >>> 16,
    usedDirectoriesLow: group.usedDirectories & 0xffff,
    usedDirectoriesHigh: group.usedDirectories >>> 16,
    flags: group.flags,
    unusedInodesLow: group.unusedInodes & 0xffff,
    unusedInodesHigh: group.unusedInodes >>> 16,
    blockBitmapCsumLow: group.blockBitmapCsum & 0xffff,
    blockBitmapCsumHigh: group.blockBitmapCsum >>> 16,
    inodeBitmapCsumLow: group.inodeBitmapCsum & 0xffff,
    inodeBitmapCsumHigh: group.inodeBitmapCsum >>> 16,
  });
  const stored = bytes.subarray(0, superblock.descriptorBytes);
  const checksum = checksumOf(stored, superblock, number);
  groupStruct.encodeInto(bytes, { checksum: checksum ?? 0 });
  table.set(stored, offset);
}
