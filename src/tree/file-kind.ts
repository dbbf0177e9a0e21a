/** The bits of a mode that say what an inode is, as Linux and all of its filesystems have them. */
export const FILE_KIND = {
  fifo: 0x1000,
  character: 0x2000,
  directory: 0x4000,
  block: 0x6000,
  file: 0x8000,
  symlink: 0xa000,
  socket: 0xc000,
  mask: 0xf000,
} as const;

/** Directory entry file types, by the kind bits of a mode. */
export const DIRENT_TYPE: ReadonlyMap<number, number> = new Map([
  [FILE_KIND.file, 1],
  [FILE_KIND.directory, 2],
  [FILE_KIND.character, 3],
  [FILE_KIND.block, 4],
  [FILE_KIND.fifo, 5],
  [FILE_KIND.socket, 6],
  [FILE_KIND.symlink, 7],
]);
