import { LazyError } from "../../errors.ts";
import {
  attribute,
  attributeOut,
  directoryEntry,
  DIRECTORY_TYPE,
  entryOut,
  ERRNO,
  FALLOCATE_MODES,
  fallocateIn,
  FATTR_SIZE,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_PARALLEL_DIRECT_WRITES,
  FUSE_MAJOR,
  FUSE_MIN_MINOR,
  FUSE_MINOR,
  INIT_FLAGS,
  initIn,
  initOut,
  inHeader,
  MAX_READ_BYTES,
  MAX_WRITE_BYTES,
  MIN_WRITE_BYTES,
  OPCODES,
  openOut,
  outHeader,
  readIn,
  REGULAR_TYPE,
  ROOT_NODE,
  setAttributesIn,
  statfsOut,
  writeIn,
} from "./protocol.ts";

/**
 * A file in the mount's only directory. Its content never changes, or is made anew for every reader (`live`), or changes through the
 * kernel alone (`writable`); its size stays.
 */
export interface FuseFile {
  readonly name: string;
  /** In bytes; 0 for live files. */
  readonly size: number;
  readonly live: boolean;
  readonly writable: boolean;
}

/** A change of a file that its caller makes, and then acknowledges. Ranges lie inside of the file. */
export type Change =
  | { readonly kind: "write"; readonly unique: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: "discard"; readonly unique: number; readonly offset: number; readonly length: number }
  | { readonly kind: "flush"; readonly unique: number };

/** A READ that its caller answers: with exactly what the file has of the range. */
export interface ReadRequest {
  readonly unique: number;
  readonly file: number;
  readonly offset: number;
  readonly length: number;
}

export type Answer =
  | { readonly kind: "reply"; readonly bytes: Uint8Array }
  | { readonly kind: "read"; readonly read: ReadRequest }
  /** Data of a write lies in the request's memory. */
  | { readonly kind: "change"; readonly file: number; readonly change: Change }
  | { readonly kind: "opened" | "released"; readonly file: number; readonly bytes: Uint8Array }
  | { readonly kind: "none" };

const DIRECTORY_MODE = 0o040500;
const FILE_MODE = 0o100400;
const WRITABLE_FILE_MODE = 0o100600;
/** Nothing of a fixed file ever changes, so the kernel need not ask again. */
const VALID_SECONDS = 86400;
const PAGE_BYTES = 4096;
const NONE: Answer = { kind: "none" };

/**
 * Answers one request of the kernel for a directory of files. Pure: nothing is read or written.
 * Nodes are 1 for the directory and 2, 3, … for the files in order. Throws `CORRUPT` for a request that is cut short.
 */
export function answerRequest(files: readonly FuseFile[], request: Uint8Array): Answer {
  const { opcode, unique, node, length } = inHeader.decode(request);
  if (length !== request.length) throw new LazyError("CORRUPT", `fuse request ${unique}: says ${length} bytes, has ${request.length}`);
  const body = request.subarray(inHeader.size);
  const index = node - ROOT_NODE - 1;
  const file = files[index];
  const isRoot = node === ROOT_NODE;
  switch (opcode) {
    case OPCODES.INIT:
      return answerInit(
        unique,
        body,
        files.some(({ writable }) => writable),
      );
    // These have no reply. An interrupted read is answered as any other.
    case OPCODES.FORGET:
    case OPCODES.BATCH_FORGET:
    case OPCODES.INTERRUPT:
      return NONE;
    case OPCODES.DESTROY:
      return reply(unique, new Uint8Array(0));
  }
  if (!isRoot && file === undefined) return fail(unique, ERRNO.NOENT);
  switch (opcode) {
    case OPCODES.LOOKUP:
      return answerLookup(files, unique, isRoot, body);
    case OPCODES.GETATTR:
      return reply(unique, encodeAttributes(file, node));
    case OPCODES.OPEN:
      return file === undefined ? fail(unique, ERRNO.ISDIR) : answerOpen(unique, file, index);
    case OPCODES.READ:
      return file === undefined ? fail(unique, ERRNO.ISDIR) : answerRead(unique, file, index, body);
    case OPCODES.SETATTR:
      return answerSetAttributes(unique, file, node, body);
    case OPCODES.WRITE:
    case OPCODES.FALLOCATE:
    case OPCODES.FSYNC:
      return file === undefined ? fail(unique, ERRNO.ISDIR) : answerChange(opcode, unique, file, index, body);
    case OPCODES.RELEASE:
      return { kind: "released", file: index, bytes: encodeReply(unique) };
    case OPCODES.OPENDIR:
      return isRoot ? reply(unique, openOut.encode({ handle: 0, flags: 0 })) : fail(unique, ERRNO.NOTDIR);
    case OPCODES.READDIR:
      return isRoot ? answerReadDirectory(files, unique, body) : fail(unique, ERRNO.NOTDIR);
    case OPCODES.STATFS:
      return reply(unique, statfsOut.encode({ files: files.length, blockSize: PAGE_BYTES, fragmentSize: PAGE_BYTES, nameLength: 255 }));
    case OPCODES.RELEASEDIR:
    case OPCODES.ACCESS:
      return reply(unique, new Uint8Array(0));
    default:
      return fail(unique, ERRNO.NOSYS);
  }
}

/** A complete reply: header and body, or the negated errno alone. */
export function encodeReply(unique: number, body: Uint8Array = new Uint8Array(0), errno = 0): Uint8Array {
  const bytes = new Uint8Array(outHeader.size + body.length);
  outHeader.encodeInto(bytes, { length: bytes.length, error: -errno >>> 0, unique });
  bytes.set(body, outHeader.size);
  return bytes;
}

/** The header of a reply whose body is written beside it; in `header`, if there is one. */
export function encodeReplyHeader(unique: number, bodyBytes: number, header = new Uint8Array(outHeader.size)): Uint8Array {
  outHeader.encodeInto(header, { length: outHeader.size + bodyBytes, error: 0, unique });
  return header;
}

function reply(unique: number, body: Uint8Array): Answer {
  return { kind: "reply", bytes: encodeReply(unique, body) };
}

function fail(unique: number, errno: number): Answer {
  return { kind: "reply", bytes: encodeReply(unique, new Uint8Array(0), errno) };
}

function answerInit(unique: number, body: Uint8Array, isWritable: boolean): Answer {
  const { major, minor, maxReadahead, flags } = initIn.decode(body);
  if (major > FUSE_MAJOR) return reply(unique, initOut.encode({ major: FUSE_MAJOR, minor: FUSE_MINOR }));
  if (major < FUSE_MAJOR || minor < FUSE_MIN_MINOR) return fail(unique, ERRNO.PROTO);
  const wanted = INIT_FLAGS.ASYNC_READ | INIT_FLAGS.ASYNC_DIO | INIT_FLAGS.PARALLEL_DIROPS | INIT_FLAGS.MAX_PAGES | INIT_FLAGS.BIG_WRITES;
  return reply(
    unique,
    initOut.encode({
      major: FUSE_MAJOR,
      minor: FUSE_MINOR,
      maxReadahead,
      flags: wanted & flags,
      maxBackground: 64,
      congestionThreshold: 48,
      maxWrite: isWritable ? MAX_WRITE_BYTES : MIN_WRITE_BYTES,
      timeGranularity: 1,
      maxPages: MAX_READ_BYTES / PAGE_BYTES,
    }),
  );
}

function answerLookup(files: readonly FuseFile[], unique: number, isRoot: boolean, body: Uint8Array): Answer {
  if (!isRoot) return fail(unique, ERRNO.NOTDIR);
  const name = Buffer.from(body.subarray(0, Math.max(0, body.indexOf(0)))).toString();
  const index = files.findIndex((file) => file.name === name);
  if (index < 0) return fail(unique, ERRNO.NOENT);
  const node = ROOT_NODE + 1 + index;
  const entry = entryOut.encode({ node, entryValidSeconds: VALID_SECONDS, attributeValidSeconds: VALID_SECONDS });
  entry.set(encodeAttribute(files[index], node), entryOut.size - attribute.size);
  return reply(unique, entry);
}

function encodeAttributes(file: FuseFile | undefined, node: number): Uint8Array {
  const bytes = attributeOut.encode({ validSeconds: VALID_SECONDS });
  bytes.set(encodeAttribute(file, node), attributeOut.size - attribute.size);
  return bytes;
}

function encodeAttribute(file: FuseFile | undefined, node: number): Uint8Array {
  const size = file?.size ?? 0;
  return attribute.encode({
    inode: node,
    size,
    blocks: Math.ceil(size / 512),
    mode: file === undefined ? DIRECTORY_MODE : file.writable ? WRITABLE_FILE_MODE : FILE_MODE,
    links: file === undefined ? 2 : 1,
    blockSize: PAGE_BYTES,
  });
}

function answerOpen(unique: number, file: FuseFile, index: number): Answer {
  const flags = file.live ? FOPEN_DIRECT_IO : file.writable ? FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE;
  return { kind: "opened", file: index, bytes: encodeReply(unique, openOut.encode({ handle: 0, flags })) };
}

function answerRead(unique: number, file: FuseFile, index: number, body: Uint8Array): Answer {
  const { offset, size } = readIn.decode(body);
  if (size > MAX_READ_BYTES) return fail(unique, ERRNO.INVAL);
  const length = file.live ? size : Math.max(0, Math.min(size, file.size - offset));
  return { kind: "read", read: { unique, file: index, offset, length } };
}

/** Times and the like are not kept, and nobody misses them; a file's size is a device's. */
function answerSetAttributes(unique: number, file: FuseFile | undefined, node: number, body: Uint8Array): Answer {
  const { valid, size } = setAttributesIn.decode(body);
  if (file?.writable !== true) return fail(unique, ERRNO.ROFS);
  if ((valid & FATTR_SIZE) !== 0 && size !== file.size) return fail(unique, ERRNO.PERM);
  return reply(unique, encodeAttributes(file, node));
}

function answerChange(opcode: number, unique: number, file: FuseFile, index: number, body: Uint8Array): Answer {
  if (!file.writable) return fail(unique, opcode === OPCODES.WRITE ? ERRNO.ROFS : ERRNO.NOSYS);
  if (opcode === OPCODES.FSYNC) return { kind: "change", file: index, change: { kind: "flush", unique } };
  return opcode === OPCODES.WRITE ? answerWrite(unique, file, index, body) : answerAllocate(unique, file, index, body);
}

function answerWrite(unique: number, file: FuseFile, index: number, body: Uint8Array): Answer {
  const { offset, size } = writeIn.decode(body);
  const data = body.subarray(writeIn.size);
  if (size !== data.length || size > MAX_WRITE_BYTES) return fail(unique, ERRNO.INVAL);
  if (offset + size > file.size) return fail(unique, ERRNO.NOSPC);
  return { kind: "change", file: index, change: { kind: "write", unique, offset, data } };
}

/** Discards and zero ranges of a loop device arrive as fallocate; in both the range reads as zeros afterwards. */
function answerAllocate(unique: number, file: FuseFile, index: number, body: Uint8Array): Answer {
  const { offset, bytes, mode } = fallocateIn.decode(body);
  const { KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE } = FALLOCATE_MODES;
  const what = mode & ~KEEP_SIZE;
  if (what !== PUNCH_HOLE && what !== ZERO_RANGE) return fail(unique, ERRNO.OPNOTSUPP);
  if (offset + bytes > file.size && mode === ZERO_RANGE) return fail(unique, ERRNO.FBIG);
  const length = Math.max(0, Math.min(bytes, file.size - offset));
  return { kind: "change", file: index, change: { kind: "discard", unique, offset: Math.min(offset, file.size), length } };
}

function answerReadDirectory(files: readonly FuseFile[], unique: number, body: Uint8Array): Answer {
  const { offset, size } = readIn.decode(body);
  const records: Uint8Array[] = [];
  let room = Math.min(size, MAX_READ_BYTES);
  const names = [".", "..", ...files.map(({ name }) => name)];
  for (let at = offset; at < names.length; at++) {
    const record = encodeDirectoryEntry(names[at], at);
    if (record.length > room) break;
    room -= record.length;
    records.push(record);
  }
  return reply(unique, Buffer.concat(records));
}

function encodeDirectoryEntry(name: string, at: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((directoryEntry.size + name.length) / 8) * 8);
  const isFile = at >= 2;
  directoryEntry.encodeInto(bytes, {
    inode: isFile ? ROOT_NODE + at - 1 : ROOT_NODE,
    nextOffset: at + 1,
    nameLength: name.length,
    type: isFile ? REGULAR_TYPE : DIRECTORY_TYPE,
  });
  bytes.set(Buffer.from(name, "latin1"), directoryEntry.size);
  return bytes;
}
