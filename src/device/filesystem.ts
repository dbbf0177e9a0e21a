import type { ByteSource } from "../bytes/source.ts";
import { unsupported } from "../errors.ts";
import { MAGIC as EROFS_MAGIC, superblockStruct as erofsSuperblockStruct } from "../formats/erofs/layout.ts";
import { MAGIC, SUPERBLOCK_OFFSET, superblockStruct } from "../formats/ext4/layout.ts";

/** Feature bit: the journal holds changes that were not written to their places. */
const NEEDS_RECOVERY = 0x4;
const SECTOR_SIZES = [512, 4096] as const;

/** What a kernel has to be told to mount a device's file system. */
export interface Filesystem {
  readonly type: "ext4" | "erofs";
  /** Sector size that the device may be given. */
  readonly sectorBytes: number;
  /** The journal was not replayed, and cannot be on a device that is read-only: it has to be left alone. */
  readonly needsRecovery: boolean;
}

/** Finds out what is on a device. Throws `UNSUPPORTED` when it is neither ext4 nor EROFS. */
export async function probeFilesystem(device: ByteSource): Promise<Filesystem> {
  const end = SUPERBLOCK_OFFSET + superblockStruct.size;
  if (device.size < end) throw unsupported(`${device.name}: ${device.size} bytes hold no file system`);
  const bytes = await device.read(SUPERBLOCK_OFFSET, superblockStruct.size);
  const magic = superblockStruct.decodeField("magic", bytes);
  if (magic === MAGIC) {
    const [logBlockSize, incompat] = [superblockStruct.decodeField("logBlockSize", bytes), superblockStruct.decodeField("incompat", bytes)];
    if (logBlockSize > 6) throw unsupported(`${device.name}: ext4 blocks of 2^${logBlockSize + 10} bytes, expected at most 65536`);
    const sectorBytes = sectorBytesFor(1024 << logBlockSize, device);
    return { type: "ext4", sectorBytes, needsRecovery: (incompat & NEEDS_RECOVERY) !== 0 };
  }
  if (erofsSuperblockStruct.decodeField("magic", bytes) === EROFS_MAGIC) {
    const blockBytes = 2 ** erofsSuperblockStruct.decodeField("blockBits", bytes);
    return { type: "erofs", sectorBytes: sectorBytesFor(blockBytes, device), needsRecovery: false };
  }
  throw unsupported(
    `${device.name}: magic at ${SUPERBLOCK_OFFSET + 0x38} is 0x${magic.toString(16)}, expected ext4's 0xef53, or EROFS's 0x${EROFS_MAGIC.toString(16)} at ${SUPERBLOCK_OFFSET}; only ext4 and EROFS images can be read`,
  );
}

function sectorBytesFor(blockBytes: number, device: ByteSource): number {
  const [small, large] = SECTOR_SIZES;
  return blockBytes >= large && device.size % large === 0 ? large : small;
}
