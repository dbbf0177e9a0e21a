import type { ByteString, DataExtent, EntryType, Timespec } from "../../src/tree/entry.ts";

const BLOCK_BYTES = 512;
const MAX_OCTAL_ID = 0o7777777;
const MAX_OCTAL_SIZE = 0o77777777777;

const TYPEFLAGS: Readonly<Record<EntryType, string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};

/** One member to write. Names, targets and xattr names are byte strings; what is absent gets an ordinary value. */
export interface TarMember {
  readonly name: ByteString;
  /** Default `file`; `directory` when the name ends with a slash and there is no data. */
  readonly type?: EntryType;
  /** Default 0o755 for directories, 0o644 for the rest. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Default 0. What a header cannot hold goes into a PAX record. */
  readonly mtime?: number | Timespec;
  readonly link?: ByteString;
  readonly major?: number;
  readonly minor?: number;
  /** Content of a file; of a sparse one the bytes of its extents. Text is UTF-8. */
  readonly data?: Uint8Array | string;
  readonly xattrs?: Readonly<Record<ByteString, Uint8Array | string>>;
  /** Makes the file sparse (PAX format 1.0): its size, and where its data belongs. */
  readonly sparse?: { readonly size: number; readonly extents: readonly DataExtent[] };
  /** More PAX records, in order, after those that the other fields ask for. */
  readonly pax?: readonly (readonly [key: ByteString, value: ByteString])[];
  /** Raw overrides for odd archives. */
  readonly raw?: RawFields;
}

/** Fields of a header block as they are to be stored, without any check. */
export interface RawFields {
  readonly typeflag?: string;
  readonly size?: ByteString | number;
  readonly mode?: ByteString;
  readonly uid?: ByteString;
  readonly gid?: ByteString;
  readonly mtime?: ByteString;
  readonly checksum?: ByteString;
  /** Eight bytes, default `ustar\0` `00`; `ustar  \0` is GNU's, zeros are v7's. */
  readonly magic?: ByteString;
  readonly prefix?: ByteString;
  /** Bytes to put at an offset of the block before its checksum is taken. */
  readonly patches?: readonly (readonly [offset: number, bytes: ByteString])[];
}

export interface TarOptions {
  /** Blocks of zeros at the end; default 2. */
  readonly endBlocks?: number;
  /** Records of a global PAX header at the start. */
  readonly globalPax?: readonly (readonly [key: ByteString, value: ByteString])[];
}

/** A tar archive with the members in order. */
export function tarArchive(members: readonly TarMember[], options: TarOptions = {}): Uint8Array {
  const parts: Uint8Array[] = [];
  if (options.globalPax !== undefined) parts.push(tarPax("g", options.globalPax));
  for (const member of members) parts.push(tarMember(member));
  parts.push(new Uint8Array((options.endBlocks ?? 2) * BLOCK_BYTES));
  return Buffer.concat(parts);
}

/** The blocks of one member: extended header where it needs one, header, padded data. */
export function tarMember(member: TarMember): Uint8Array {
  const map = sparseMapOf(member);
  const data = Buffer.concat([map, bytesOf(member.data ?? "")]);
  const records = recordsOf(member, data.length);
  const extended = records.length === 0 ? new Uint8Array(0) : tarPax("x", records);
  return Buffer.concat([extended, tarHeader(member, data.length), padded(data)]);
}

/** An extended header member with its records. */
export function tarPax(typeflag: "x" | "g", records: readonly (readonly [ByteString, ByteString])[]): Uint8Array {
  const body = Buffer.from(records.map(([key, value]) => paxRecord(key, value)).join(""), "latin1");
  return Buffer.concat([tarHeader({ name: "PaxHeader", raw: { typeflag } }, body.length), padded(body)]);
}

/** A member that holds the next one's name (`L`) or link target (`K`), as GNU tar writes it. */
export function tarLongName(typeflag: "L" | "K", name: ByteString): Uint8Array {
  const body = Buffer.from(`${name}\0`, "latin1");
  return Buffer.concat([tarHeader({ name: "././@LongLink", raw: { typeflag, magic: "ustar  \0" } }, body.length), padded(body)]);
}

/** A base-256 number of `length` bytes. */
export function base256(value: bigint, length: number): ByteString {
  const bytes = Buffer.alloc(length);
  for (let at = length - 1, rest = value; at >= 0; at--, rest >>= 8n) bytes[at] = Number(rest & 0xffn);
  bytes[0] |= 0x80;
  return bytes.toString("latin1");
}

/** A header block alone. */
export function tarHeader(member: TarMember, size: number): Uint8Array {
  const raw = member.raw ?? {};
  const type = typeOf(member);
  const block = Buffer.alloc(BLOCK_BYTES);
  const put = (offset: number, bytes: ByteString, limit: number): number => block.write(bytes.slice(0, limit), offset, "latin1");
  put(0, member.name, 100);
  put(100, raw.mode ?? octal(member.mode ?? (type === "directory" ? 0o755 : 0o644), 8), 8);
  put(108, raw.uid ?? octal(fitting(member.uid ?? 0, MAX_OCTAL_ID), 8), 8);
  put(116, raw.gid ?? octal(fitting(member.gid ?? 0, MAX_OCTAL_ID), 8), 8);
  put(124, typeof raw.size === "string" ? raw.size : octal(fitting(raw.size ?? size, MAX_OCTAL_SIZE), 12), 12);
  put(136, raw.mtime ?? octal(fitting(timeOf(member).seconds, MAX_OCTAL_SIZE), 12), 12);
  put(156, raw.typeflag ?? TYPEFLAGS[type], 1);
  put(157, member.link ?? "", 100);
  put(257, raw.magic ?? "ustar\x0000", 8);
  put(329, octal(member.major ?? 0, 8), 8);
  put(337, octal(member.minor ?? 0, 8), 8);
  put(345, raw.prefix ?? "", 155);
  for (const [offset, bytes] of raw.patches ?? []) put(offset, bytes, BLOCK_BYTES - offset);
  block.write("        ", 148, "latin1");
  let sum = 0;
  for (const byte of block) sum += byte;
  put(148, raw.checksum ?? `${sum.toString(8).padStart(6, "0")}\0 `, 8);
  return block;
}

function typeOf(member: TarMember): EntryType {
  const hasContent = member.data !== undefined || member.sparse !== undefined;
  return member.type ?? (member.name.endsWith("/") && !hasContent ? "directory" : "file");
}

function timeOf(member: TarMember): Timespec {
  const time = member.mtime ?? 0;
  return typeof time === "number" ? { seconds: time, nanoseconds: 0 } : time;
}

/** What a header block cannot hold is 0 there and in a PAX record. */
function fitting(value: number, limit: number): number {
  return value >= 0 && value <= limit ? value : 0;
}

function recordsOf(member: TarMember, dataBytes: number): [ByteString, ByteString][] {
  const records: [ByteString, ByteString][] = [];
  const { seconds, nanoseconds } = timeOf(member);
  if (member.name.length > 100) records.push(["path", member.name]);
  if ((member.link ?? "").length > 100) records.push(["linkpath", member.link ?? ""]);
  if ((member.uid ?? 0) > MAX_OCTAL_ID) records.push(["uid", String(member.uid)]);
  if ((member.gid ?? 0) > MAX_OCTAL_ID) records.push(["gid", String(member.gid)]);
  if (nanoseconds !== 0 || seconds < 0 || seconds > MAX_OCTAL_SIZE) records.push(["mtime", paxTimeText(seconds, nanoseconds)]);
  if (dataBytes > MAX_OCTAL_SIZE) records.push(["size", String(dataBytes)]);
  if (member.sparse !== undefined) {
    records.push(["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"]);
    records.push(["GNU.sparse.name", member.name], ["GNU.sparse.realsize", String(member.sparse.size)]);
  }
  for (const [name, value] of Object.entries(member.xattrs ?? {})) {
    records.push([`SCHILY.xattr.${name}`, Buffer.from(bytesOf(value)).toString("latin1")]);
  }
  return [...records, ...(member.pax ?? []).map(([key, value]): [ByteString, ByteString] => [key, value])];
}

function paxTimeText(seconds: number, nanoseconds: number): string {
  if (nanoseconds === 0) return String(seconds);
  const [whole, fraction] = seconds < 0 ? [-seconds - 1, 1e9 - nanoseconds] : [seconds, nanoseconds];
  return `${seconds < 0 ? "-" : ""}${whole}.${String(fraction).padStart(9, "0")}`;
}

/** `LENGTH KEY=VALUE\n`, where the length counts its own digits. */
function paxRecord(key: ByteString, value: ByteString): ByteString {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return `${length}${rest}`;
}

function sparseMapOf(member: TarMember): Uint8Array {
  if (member.sparse === undefined) return new Uint8Array(0);
  const numbers = [member.sparse.extents.length, ...member.sparse.extents.flatMap(({ offset, length }) => [offset, length])];
  return padded(Buffer.from(numbers.map((number) => `${number}\n`).join("")));
}

function bytesOf(data: Uint8Array | string): Uint8Array {
  return typeof data === "string" ? Buffer.from(data) : data;
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\0`;
}

function padded(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([bytes, new Uint8Array((BLOCK_BYTES - (bytes.length % BLOCK_BYTES)) % BLOCK_BYTES)]);
}
