import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { ByteSource } from "../../bytes/source.ts";
import type { StructValue } from "../../bytes/struct.ts";
import { corrupt, unsupported } from "../../errors.ts";
import { BLOCK_BYTES, COMPAT, INCOMPAT, MAGIC, SUPERBLOCK_OFFSET, superblockStruct } from "./layout.ts";

/** A superblock that was checked. */
export interface Superblock {
  readonly fields: StructValue<typeof superblockStruct>;
  readonly blockBytes: number;
  /** Byte offset that inode numbers count from. */
  readonly metaOffset: number;
  /** Byte offset that shared attributes count from. */
  readonly xattrOffset: number;
  /** End of what the filesystem uses, in bytes. */
  readonly end: number;
}

const MIN_BLOCK_BITS = 9;
const MAX_BLOCK_BITS = 16;
const NANOSECONDS = 1_000_000_000;
/** Compressed files can be listed; everything else about such a filesystem is as usual. */
const READ_FEATURES =
  INCOMPAT.zeroPadding |
  INCOMPAT.compressionConfigs |
  INCOMPAT.chunkedFile |
  INCOMPAT.deviceTable |
  INCOMPAT.compressedTail |
  INCOMPAT.fragments;

/** Reads and checks a superblock. Throws `CORRUPT` or `UNSUPPORTED`, naming the field. */
export async function readSuperblock(source: ByteSource): Promise<Superblock> {
  const { name, size } = source;
  if (size < SUPERBLOCK_OFFSET + superblockStruct.size) throw corrupt(`${name}: ${size} bytes are too few for an EROFS filesystem`);
  const head = await source.read(SUPERBLOCK_OFFSET, Math.min(BLOCK_BYTES, size) - SUPERBLOCK_OFFSET);
  const fields = superblockStruct.decode(head);
  const where = `${name}: EROFS superblock`;
  if (fields.magic !== MAGIC) throw corrupt(`${where} has magic 0x${fields.magic.toString(16)}, expected 0x${MAGIC.toString(16)}`);
  if (fields.blockBits < MIN_BLOCK_BITS || fields.blockBits > MAX_BLOCK_BITS)
    throw corrupt(`${where} has blocks of 2^${fields.blockBits} bytes, expected 2^${MIN_BLOCK_BITS} to 2^${MAX_BLOCK_BITS}`);
  const blockBytes = 2 ** fields.blockBits;
  const end = fields.blocks * blockBytes;
  if (end > size) throw corrupt(`${where} counts ${fields.blocks} blocks of ${blockBytes} bytes, the device has ${size} bytes`);
  if (fields.compat & COMPAT.checksum) await checkChecksum(source, fields.checksum, blockBytes);
  checkFeatures(fields, where);
  return { fields, blockBytes, metaOffset: fields.metaBlock * blockBytes, xattrOffset: fields.xattrBlock * blockBytes, end };
}

async function checkChecksum(source: ByteSource, stored: number, blockBytes: number): Promise<void> {
  const length = blockBytes > SUPERBLOCK_OFFSET ? blockBytes - SUPERBLOCK_OFFSET : blockBytes;
  const found = superblockChecksum(await source.read(SUPERBLOCK_OFFSET, Math.min(length, source.size - SUPERBLOCK_OFFSET)));
  if (found !== stored)
    throw corrupt(`${source.name}: EROFS superblock has checksum 0x${stored.toString(16)}, expected 0x${found.toString(16)}`);
}

function checkFeatures(fields: Superblock["fields"], where: string): void {
  const unknown = fields.incompat & ~READ_FEATURES;
  if (unknown) throw unsupported(`${where} has features 0x${(unknown >>> 0).toString(16)} that are not supported`);
  if (fields.extraDevices > 0)
    throw unsupported(`${where} wants ${fields.extraDevices} more devices; only filesystems on one are supported`);
  if (fields.directoryBlockBits > 0)
    throw unsupported(`${where} has directory blocks of 2^${fields.directoryBlockBits} blocks, expected one block`);
  if (fields.buildNanoseconds >= NANOSECONDS) throw corrupt(`${where} has a build time of ${fields.buildNanoseconds} nanoseconds`);
}

/** The checksum of the superblock and what follows it in its block; its own field counts as zero. */
function superblockChecksum(bytes: Uint8Array): number {
  const clean = Uint8Array.from(bytes);
  superblockStruct.encodeInto(clean, { checksum: 0 });
  return crc32cRaw(0xffffffff, clean);
}

/** Throws `UNSUPPORTED` for a filesystem that can be read but not continued. */
export function checkWritable({ fields, blockBytes }: Superblock, name: string): void {
  if (blockBytes !== BLOCK_BYTES) throw unsupported(`${name}: EROFS blocks of ${blockBytes} bytes; only ${BLOCK_BYTES} can be continued`);
  const compressed = fields.incompat & ~INCOMPAT.chunkedFile;
  if (compressed) throw unsupported(`${name}: EROFS features 0x${compressed.toString(16)}; compressed filesystems cannot be continued`);
}

/** Block 0: the superblock with its checksum, and zeros. */
export function encodeSuperblock(fields: Partial<StructValue<typeof superblockStruct>>): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  const bytes = block.subarray(SUPERBLOCK_OFFSET);
  superblockStruct.encodeInto(bytes, { ...fields, magic: MAGIC, compat: COMPAT.checksum, blockBits: Math.log2(BLOCK_BYTES) });
  superblockStruct.encodeInto(bytes, { checksum: superblockChecksum(bytes) });
  return block;
}
