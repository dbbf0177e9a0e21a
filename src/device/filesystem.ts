import type { ByteSource } from "../bytes/source.ts";
import { unsupported } from "../errors.ts";
import { MAGIC, SUPERBLOCK_OFFSET, superblockStruct } from "../formats/ext4/layout.ts";

/** Feature bit: the journal holds changes that were not written to their places. */
const NEEDS_RECOVERY = 0x4;
const SECTOR_SIZES = [512, 4096] as const;

/** What a kernel has to be told to mount a device's file system. */
export interface Filesystem {
  readonly type: "ext4";
  /** Sector size that the device may be given. */
  readonly sectorBytes: number;
  /** The journal was not replayed, and cannot be on a device that is read-only: it has to be left alone. */
  readonly needsRecovery: boolean;
}

/** Finds out what is on a device. Throws `UNSUPPORTED` when it is not ext4. */
export async function probeFilesystem(device: ByteSource): Promise<Filesystem> {
  const end = SUPERBLOCK_OFFSET + superblockStruct.size;
  if (device.size < end) throw unsupported(`${device.name}: ${device.size} bytes hold no file system`);
  const { magic, logBlockSize, incompat } = superblockStruct.decode(await device.read(SUPERBLOCK_OFFSET, superblockStruct.size));
  if (magic !== MAGIC) {
    throw unsupported(
      `${device.name}: magic at ${SUPERBLOCK_OFFSET + 0x38} is 0x${magic.toString(16)}, expected ext4's 0xef53; only ext4 images can be mounted`,
    );
  }
  if (logBlockSize > 6) throw unsupported(`${device.name}: ext4 blocks of 2^${logBlockSize + 10} bytes, expected at most 65536`);
  const blockBytes = 1024 << logBlockSize;
  const [small, large] = SECTOR_SIZES;
  const sectorBytes = blockBytes >= large && device.size % large === 0 ? large : small;
  return { type: "ext4", sectorBytes, needsRecovery: (incompat & NEEDS_RECOVERY) !== 0 };
}
