import { Struct, u16, u32, u64 } from "../../bytes/struct.ts";

/** The kernel's FUSE protocol, version 7, as far as a file system of fixed files, which may be written in place, needs it (see linux/fuse.h). */
export const FUSE_MAJOR = 7;
/** The minor version whose structures are used; the kernel speaks the lower of both sides. */
export const FUSE_MINOR = 38;
/** The oldest kernel side that asks and understands the structures below (Linux 4.20: max_pages). */
export const FUSE_MIN_MINOR = 28;

export const ROOT_NODE = 1;

/** Largest READ: 256 pages of 4096. */
export const MAX_READ_BYTES = 2 ** 20;
/** Where nothing is written; the kernel wants at least a page. */
export const MIN_WRITE_BYTES = 4096;
/** Largest WRITE: 256 pages of 4096. */
export const MAX_WRITE_BYTES = 2 ** 20;
/** What comes with the largest WRITE; the kernel refuses reads of the device with less room than this, or 8192. */
const REQUEST_HEAD_BYTES = 40 + 40;
/** Room for any request, with some to spare. */
export const READ_ONLY_BUFFER_BYTES = 16384;
export const WRITABLE_BUFFER_BYTES = MAX_WRITE_BYTES + REQUEST_HEAD_BYTES + 4096;

export const OPCODES = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  ACCESS: 34,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
} as const;

export const INIT_FLAGS = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
} as const;

export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
/** Writes to one file need not wait for each other (Linux 6.0). */
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6;

/** Which attribute SETATTR changes: the size. */
export const FATTR_SIZE = 1 << 3;

/** Modes of fallocate(2). */
export const FALLOCATE_MODES = { KEEP_SIZE: 0x01, PUNCH_HOLE: 0x02, ZERO_RANGE: 0x10 } as const;

/** errno values of Linux. */
export const ERRNO = {
  PERM: 1,
  NOENT: 2,
  IO: 5,
  NOTDIR: 20,
  ISDIR: 21,
  INVAL: 22,
  FBIG: 27,
  NOSPC: 28,
  ROFS: 30,
  NOSYS: 38,
  PROTO: 71,
  OPNOTSUPP: 95,
} as const;

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

/** The data follows. */
export const writeIn = new Struct(40, { handle: [0, u64], offset: [8, u64], size: [16, u32] });

export const writeOut = new Struct(8, { size: [0, u32] });

export const fallocateIn = new Struct(32, { handle: [0, u64], offset: [8, u64], bytes: [16, u64], mode: [24, u32] });

export const setAttributesIn = new Struct(88, { valid: [0, u32], size: [16, u64] });

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
