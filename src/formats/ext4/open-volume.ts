import { crc32cRaw } from "../../bytes/crc32c.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";
import { Ext4Reader } from "./ext4-reader.ts";
import { isFastSymlink, isKind, type Inode } from "./inode.ts";
import { BLOCK_BYTES, GROUP_FLAG, INODE_BYTES, INODE_FLAG, ROOT_INODE } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";
import { checkWritable } from "./superblock.ts";
import { Volume } from "./volume.ts";

/** Loads a filesystem's metadata: descriptors, bitmaps, and for each used inode what is not file data. */
export async function openVolume(source: ByteSource): Promise<Volume> {
  const reader = await Ext4Reader.open(source);
  checkWritable(reader.superblock, source.name);
  const volume = new Volume(reader.superblock, [...reader.groups]);
  const load = async (block: number): Promise<Uint8Array> => {
    const bytes = await reader.block(block);
    volume.blocks.load(block, bytes);
    return bytes;
  };
  const descriptorBlocks = Math.ceil((reader.superblock.groups * reader.superblock.descriptorBytes) / BLOCK_BYTES);
  for (let block = 0; block <= descriptorBlocks; block++) await load(block);
  for (const [number, group] of volume.groups.entries()) {
    if (!(group.flags & GROUP_FLAG.blockUninit)) {
      checkBitmap(
        reader,
        await load(group.blockBitmap),
        reader.superblock.blocksPerGroup,
        group.blockBitmapCsum,
        `block bitmap of group ${number}`,
      );
    }
    if (group.flags & GROUP_FLAG.inodeUninit) continue;
    const bitmap = await load(group.inodeBitmap);
    checkBitmap(reader, bitmap, reader.superblock.inodesPerGroup, group.inodeBitmapCsum, `inode bitmap of group ${number}`);
    await loadInodes(reader, load, bitmap, number);
  }
  return volume;
}

function checkBitmap(reader: Ext4Reader, bitmap: Uint8Array, bits: number, stored: number, what: string): void {
  const { hasMetadataCsum, seed, descriptorBytes } = reader.superblock;
  if (!hasMetadataCsum) return;
  const found = crc32cRaw(seed, bitmap, 0, bits / 8);
  const expected = descriptorBytes < 64 ? found & 0xffff : found;
  if (stored !== expected)
    throw corrupt(`${reader.name}: ${what} has checksum 0x${stored.toString(16)}, expected 0x${expected.toString(16)}`);
}

type Load = (block: number) => Promise<Uint8Array>;

async function loadInodes(reader: Ext4Reader, load: Load, bitmap: Uint8Array, group: number): Promise<void> {
  const { inodesPerGroup, fields } = reader.superblock;
  for (let index = 0; index < inodesPerGroup; index++) {
    if (!(bitmap[index >>> 3] & (1 << (index & 7)))) continue;
    const number = group * inodesPerGroup + index + 1;
    await load(Math.floor((reader.groups[group].inodeTable * BLOCK_BYTES + index * INODE_BYTES) / BLOCK_BYTES));
    if (number === ROOT_INODE || number >= fields.firstInode) await loadInode(reader, load, number);
  }
}

/** Loads the blocks of one inode that are metadata: extent tree, directory, long symlink target, attributes. */
async function loadInode(reader: Ext4Reader, load: Load, number: number): Promise<void> {
  const inode = await reader.inode(number);
  if (inode.xattrBlock !== 0) await load(inode.xattrBlock);
  if (!(inode.flags & INODE_FLAG.extents) || isFastSymlink(inode)) return;
  const nodes: number[] = [];
  const extents = await reader.extents(number, inode, (block) => nodes.push(block));
  for (const block of nodes) await load(block);
  if (!holdsMetadata(inode)) return;
  for (const extent of extents) for (let index = 0; index < extent.blocks; index++) await load(extent.block + index);
}

function holdsMetadata(inode: Inode): boolean {
  return isKind(inode, FILE_KIND.directory) || isKind(inode, FILE_KIND.symlink);
}
