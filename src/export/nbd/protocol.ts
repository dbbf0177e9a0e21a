import { Struct, type FieldType } from "../../bytes/struct.ts";

/** The public NBD protocol as far as it is spoken here: fixed newstyle handshake, simple and structured replies. All integers are big-endian. */

export const SERVER_MAGIC = 0x4e42_444d_4147_4943n; // "NBDMAGIC"
export const OPTION_MAGIC = 0x4948_4156_454f_5054n; // "IHAVEOPT"
export const OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;
export const REQUEST_MAGIC = 0x2560_9513;
export const SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const CHUNK_MAGIC = 0x668e_33ef;

/** Largest payload of a request or reply, which clients that ask for no limit have to keep as well. */
export const MAX_PAYLOAD_BYTES = 32 * 2 ** 20;
/** Longest name of an export, in bytes. */
export const MAX_NAME_BYTES = 4096;
/** Longest option: a name, and some queries or requests for information. */
export const MAX_OPTION_BYTES = 64 * 1024;
/** Zeros at the end of the reply to EXPORT_NAME, unless both sides can do without. */
export const EXPORT_NAME_PADDING_BYTES = 124;

export const HANDSHAKE_FLAGS = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

export const OPTIONS = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

export const OPTION_REPLIES = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_INVALID: 0x8000_0003,
  ERR_UNKNOWN: 0x8000_0006,
} as const;

export const INFOS = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const TRANSMISSION_FLAGS = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_FAST_ZERO: 1 << 11,
} as const;

export const COMMANDS = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6, BLOCK_STATUS: 7 } as const;

export const COMMAND_FLAGS = { FUA: 1 << 0, NO_HOLE: 1 << 1, DF: 1 << 2, REQ_ONE: 1 << 3, FAST_ZERO: 1 << 4 } as const;

export const CHUNKS = { NONE: 0, OFFSET_DATA: 1, BLOCK_STATUS: 5, ERROR: 0x8001 } as const;
export const CHUNK_DONE = 1 << 0;

export const ERRNO = { PERM: 1, IO: 5, NOMEM: 12, INVAL: 22, NOSPC: 28, NOTSUP: 95, SHUTDOWN: 108 } as const;

export const ALLOCATION_CONTEXT = "base:allocation";
export const ALLOCATION_CONTEXT_ID = 1;
export const ALLOCATION_FLAGS = { HOLE: 1 << 0, ZERO: 1 << 1 } as const;

const u16: FieldType<number> = {
  bytes: 2,
  get: (view, at) => view.getUint16(at),
  set: (view, at, value) => view.setUint16(at, value),
};

const u32: FieldType<number> = {
  bytes: 4,
  get: (view, at) => view.getUint32(at),
  set: (view, at, value) => view.setUint32(at, value),
};

/** An offset or size. From 2^53 on it is not exact, but still larger than any device. */
const u64: FieldType<number> = {
  bytes: 8,
  get: (view, at) => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4),
  set: (view, at, value) => view.setBigUint64(at, BigInt(value)),
};

/** A value that is compared or sent back, never calculated with. */
const opaque64: FieldType<bigint> = {
  bytes: 8,
  get: (view, at) => view.getBigUint64(at),
  set: (view, at, value) => view.setBigUint64(at, value),
};

export const greeting = new Struct(18, { magic: [0, opaque64], optionMagic: [8, opaque64], flags: [16, u16] });
export const clientFlags = new Struct(4, { flags: [0, u32] });
export const optionHeader = new Struct(16, { magic: [0, opaque64], option: [8, u32], length: [12, u32] });
export const optionReply = new Struct(20, { magic: [0, opaque64], option: [8, u32], type: [12, u32], length: [16, u32] });
/** The reply to EXPORT_NAME, which has no header. */
export const exportNameReply = new Struct(10, { size: [0, u64], flags: [8, u16] });
export const exportInfo = new Struct(12, { type: [0, u16], size: [2, u64], flags: [10, u16] });
export const blockSizeInfo = new Struct(14, { type: [0, u16], minimum: [2, u32], preferred: [6, u32], maximum: [10, u32] });
export const number16 = new Struct(2, { value: [0, u16] });
export const number32 = new Struct(4, { value: [0, u32] });

export const requestHeader = new Struct(28, {
  magic: [0, u32],
  flags: [4, u16],
  command: [6, u16],
  cookie: [8, opaque64],
  offset: [16, u64],
  length: [24, u32],
});
export const simpleReply = new Struct(16, { magic: [0, u32], error: [4, u32], cookie: [8, opaque64] });
export const chunkHeader = new Struct(20, {
  magic: [0, u32],
  flags: [4, u16],
  type: [6, u16],
  cookie: [8, opaque64],
  length: [16, u32],
});
/** In front of the data in a chunk of a read. */
export const dataPlace = new Struct(8, { offset: [0, u64] });
/** A text follows. */
export const chunkError = new Struct(6, { error: [0, u32], textBytes: [4, u16] });
export const extentRecord = new Struct(8, { bytes: [0, u32], flags: [4, u32] });
