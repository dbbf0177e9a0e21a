import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import type { NamedInode } from "../../tree/filesystem-reader.ts";
import { MAX_NAME_BYTES, quoted } from "../../tree/path.ts";
import { BLOCK_BYTES, direntStruct } from "./layout.ts";

const { size: DIRENT_BYTES, fields: AT } = direntStruct;

/** How many names go into each block of a directory, and how many bytes the last one has. */
export interface DirectoryShape {
  /** Index of the first name of each block. */
  readonly firstNames: readonly number[];
  readonly lastBytes: number;
}

/** Divides sorted names among blocks, each as full as possible. */
export function shapeDirectory(names: readonly ByteString[]): DirectoryShape {
  const firstNames = [0];
  let used = 0;
  for (let index = 0; index < names.length; index++) {
    const bytes = DIRENT_BYTES + names[index].length;
    if (used + bytes > BLOCK_BYTES) {
      firstNames.push(index);
      used = 0;
    }
    used += bytes;
  }
  return { firstNames, lastBytes: used };
}

/** Writes one block's names at an offset that holds zeros; `entryOf` gives a name's inode number and type. */
export function encodeDirectoryBlock(
  names: readonly ByteString[],
  first: number,
  end: number,
  entryOf: (name: ByteString) => { readonly nid: number; readonly type: number },
  target: Buffer,
  offset: number,
): void {
  let nameAt = (end - first) * DIRENT_BYTES;
  for (let index = first; index < end; index++) {
    const at = offset + (index - first) * DIRENT_BYTES;
    const { nid, type } = entryOf(names[index]);
    target.writeUInt32LE(nid % 2 ** 32, at);
    target.writeUInt32LE(Math.floor(nid / 2 ** 32), at + 4);
    target.writeUInt16LE(nameAt, at + AT.nameOffset[0]);
    target[at + AT.type[0]] = type;
    target.write(names[index], offset + nameAt, "latin1");
    nameAt += names[index].length;
  }
}

/** The names in one block of a directory, `.` and `..` left out. `bytes` ends where the directory does. */
export function decodeDirectoryBlock(bytes: Uint8Array, where: string, visit: (entry: NamedInode) => void): void {
  const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (block.length < DIRENT_BYTES) throw corrupt(`${where}: directory block of ${block.length} bytes`);
  const namesStart = block.readUInt16LE(AT.nameOffset[0]);
  if (namesStart < DIRENT_BYTES || namesStart % DIRENT_BYTES !== 0 || namesStart > block.length)
    throw corrupt(`${where}: names begin at ${namesStart} of ${block.length} bytes`);
  for (let at = 0, start = namesStart; at < namesStart; at += DIRENT_BYTES) {
    const isLast = at + DIRENT_BYTES === namesStart;
    const end = isLast ? endOfName(block, start) : block.readUInt16LE(at + DIRENT_BYTES + AT.nameOffset[0]);
    if (end <= start || end > block.length || end - start > MAX_NAME_BYTES)
      throw corrupt(`${where}: a name lies at ${start}–${end} of ${block.length} bytes`);
    const name = block.toString("latin1", start, end);
    if (name !== "." && name !== "..") visit({ name: checkedName(name, where), inode: AT.nid[1].get(viewOf(block), at) });
    start = end;
  }
}

function viewOf(block: Buffer): DataView {
  return new DataView(block.buffer, block.byteOffset, block.length);
}

/** The last name of a block ends with the block or a zero byte. */
function endOfName(block: Buffer, start: number): number {
  const zero = block.indexOf(0, start);
  return zero < 0 ? block.length : zero;
}

function checkedName(name: ByteString, where: string): ByteString {
  if (name.includes("/") || name.includes("\0")) throw corrupt(`${where}: the name ${quoted(name)} is not possible`);
  return name;
}
