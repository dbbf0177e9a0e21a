import { corrupt } from "../../errors.ts";
import type { Extent } from "./extent-tree.ts";
import type { Inode } from "./inode.ts";

/** Block numbers in the inode itself; three more lead to blocks of numbers, of such blocks, and of those. */
const DIRECT_BLOCKS = 12;
const MAX_LEVELS = 3;

interface BlockMap {
  readonly blockBytes: number;
  readonly deviceBlocks: number;
  /** Names the inode in messages. */
  readonly where: string;
}

/**
 * Where the blocks of a file without extents are, as ext2 and ext3 keep them: twelve block numbers in the inode, then
 * trees of one, two and three levels. A zero stands for a hole. `visitNode` gets the blocks that hold numbers.
 */
export async function readBlockMap(
  inode: Inode,
  map: BlockMap,
  read: (block: number) => Promise<Uint8Array>,
  visitNode: (block: number) => void,
): Promise<Extent[]> {
  const perBlock = map.blockBytes / 4;
  const extents: Extent[] = [];
  const roots = numbersOf(inode.block);
  let fileBlock = 0;
  const walk = async (block: number, level: number): Promise<void> => {
    if (block >= map.deviceBlocks) throw corrupt(`${map.where}: block ${block} is beyond the last, ${map.deviceBlocks - 1}`);
    if (block === 0 || level === 0) {
      if (block !== 0) append(extents, fileBlock, block);
      fileBlock += perBlock ** level;
      return;
    }
    visitNode(block);
    for (const child of numbersOf(await read(block))) await walk(child, level - 1);
  };
  const end = Math.ceil(inode.size / map.blockBytes);
  for (let index = 0; index < DIRECT_BLOCKS; index++) await walk(roots[index], 0);
  for (let level = 1; level <= MAX_LEVELS && fileBlock < end; level++) await walk(roots[DIRECT_BLOCKS + level - 1], level);
  return extents;
}

function numbersOf(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / 4 }, (_, index) => view.getUint32(index * 4, true));
}

function append(extents: Extent[], fileBlock: number, block: number): void {
  const last = extents.at(-1);
  if (last && last.fileBlock + last.blocks === fileBlock && last.block + last.blocks === block) {
    extents[extents.length - 1] = { ...last, blocks: last.blocks + 1 };
  } else {
    extents.push({ fileBlock, blocks: 1, block, unwritten: false });
  }
}
