import { Struct, u16, u32, u64 } from "../../bytes/struct.ts";

/** The kernel's FUSE protocol, version 7, as far as a read-only file system of fixed files needs it (see linux/fuse.h). */
export const FUSE_MAJOR = 7;
/** The minor version whose structures are used; the kernel speaks the lower of both sides. */
export const FUSE_MINOR = 38;
/** The oldest kernel side that asks and understands the structures below (Linux 4.20: max_pages). */
export const FUSE_MIN_MINOR = 28;

export const ROOT_NODE = 1;

/** Largest READ: 256 pages of 4096. */
export const MAX_READ_BYTES = 2 ** 20;
/** Nothing is ever written; the kernel wants at least a page. */
export const MAX_WRITE_BYTES = 4096;
/** The kernel refuses smaller reads of the device: 8192, or header (40), write header (40) and max_write. */
export const REQUEST_BUFFER_BYTES = 16384;

export const OPCODES = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  OPEN: 14,
  READ: 15,
  STATFS: 17,
  RELEASE: 18,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  ACCESS: 34,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
} as const;

export const INIT_FLAGS = {
  ASYNC_READ: 1 << 0,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
} as const;

export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;

/** errno values of Linux. */
export const ERRNO = { NOENT: 2, IO: 5, NOTDIR: 20, ISDIR: 21, INVAL: 22, NOSYS: 38, PROTO: 71 } as const;

export const inHeader = new Struct(40, {
  length: [0, u32],
  opcode: [4, u32],
  unique: [8, u64],
  node: [16, u64],
  uid: [24, u32],
  gid: [28, u32],
  pid: [32, u32],
});

export const outHeader = new Struct(16, { length: [0, u32], error: [4, u32], unique: [8, u64] });

export const initIn = new Struct(16, { major: [0, u32], minor: [4, u32], maxReadahead: [8, u32], flags: [12, u32] });

export const initOut = new Struct(64, {
  major: [0, u32],
  minor: [4, u32],
  maxReadahead: [8, u32],
  flags: [12, u32],
  maxBackground: [16, u16],
  congestionThreshold: [18, u16],
  maxWrite: [20, u32],
  timeGranularity: [24, u32],
  maxPages: [28, u16],
});

const attributes = {
  inode: [0, u64],
  size: [8, u64],
  blocks: [16, u64],
  mode: [60, u32],
  links: [64, u32],
  uid: [68, u32],
  gid: [72, u32],
  blockSize: [80, u32],
} as const;

export const attribute = new Struct(88, attributes);

/** An attribute follows at 16. */
export const attributeOut = new Struct(16 + 88, { validSeconds: [0, u64] });

/** An attribute follows at 40. */
export const entryOut = new Struct(40 + 88, {
  node: [0, u64],
  generation: [8, u64],
  entryValidSeconds: [16, u64],
  attributeValidSeconds: [24, u64],
});

export const openOut = new Struct(16, { handle: [0, u64], flags: [8, u32] });

export const readIn = new Struct(40, { handle: [0, u64], offset: [8, u64], size: [16, u32] });

export const statfsOut = new Struct(80, {
  blocks: [0, u64],
  files: [24, u64],
  blockSize: [40, u32],
  nameLength: [44, u32],
  fragmentSize: [48, u32],
});

/** The name follows; a record is padded to eight bytes. */
export const directoryEntry = new Struct(24, { inode: [0, u64], nextOffset: [8, u64], nameLength: [16, u32], type: [20, u32] });

export const DIRECTORY_TYPE = 4;
export const REGULAR_TYPE = 8;
