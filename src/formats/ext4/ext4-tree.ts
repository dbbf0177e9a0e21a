import type { ByteSource } from "../../bytes/source.ts";
import { corrupt } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import type { DeviceExtent, FilesystemInode, FilesystemReader, FileType, NamedInode } from "../../tree/filesystem-reader.ts";
import type { Ext4Reader } from "./ext4-reader.ts";
import { decodeDevice, isKind } from "./inode.ts";
import { ROOT_INODE } from "./layout.ts";
import { FILE_KIND } from "../../tree/file-kind.ts";

const TYPE_OF: ReadonlyMap<number, FileType> = new Map([
  [FILE_KIND.file, "file"],
  [FILE_KIND.directory, "directory"],
  [FILE_KIND.symlink, "symlink"],
  [FILE_KIND.character, "character"],
  [FILE_KIND.block, "block"],
  [FILE_KIND.fifo, "fifo"],
  [FILE_KIND.socket, "socket"],
]);

/** An ext4 filesystem as its tree of files, without the format's particulars. */
export class Ext4Tree implements FilesystemReader {
  readonly name: string;
  readonly root = ROOT_INODE;
  readonly #reader: Ext4Reader;

  constructor(reader: Ext4Reader) {
    this.#reader = reader;
    this.name = reader.name;
  }

  async inode(number: number): Promise<FilesystemInode> {
    const { mode, uid, gid, size, links, mtime, atime, ctime, block } = await this.#reader.inode(number);
    const type = TYPE_OF.get(mode & FILE_KIND.mask) ?? "unknown";
    const device = type === "character" || type === "block" ? decodeDevice(block) : { major: 0, minor: 0 };
    return { number, type, mode: mode & ~FILE_KIND.mask, uid, gid, size, links, mtime, atime, ctime, ...device };
  }

  async list(number: number): Promise<readonly NamedInode[]> {
    return await this.#reader.list(number);
  }

  async linkTarget(number: number): Promise<ByteString> {
    return await this.#reader.linkTarget(number);
  }

  async xattrs(number: number): Promise<ReadonlyMap<ByteString, Uint8Array>> {
    return await this.#reader.xattrs(number);
  }

  async file(number: number): Promise<ByteSource> {
    return await this.#reader.file(number);
  }

  async extents(number: number): Promise<DeviceExtent[]> {
    const inode = await this.#reader.inode(number);
    if (!isKind(inode, FILE_KIND.file)) throw corrupt(`${this.name}: inode ${number} is not a regular file`);
    const { blockBytes } = this.#reader.superblock;
    const found: DeviceExtent[] = [];
    for (const extent of await this.#reader.extents(number, inode)) {
      const offset = extent.fileBlock * blockBytes;
      const length = Math.min(extent.blocks * blockBytes, inode.size - offset);
      if (!extent.unwritten && length > 0) found.push({ offset, length, deviceOffset: extent.block * blockBytes });
    }
    return found;
  }
}
