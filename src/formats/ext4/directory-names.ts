import type { ByteString } from "../../tree/entry.ts";
import { entryBytes, type DirectoryEntry } from "./directory-block.ts";
import { hashName, type DirectoryHash } from "./directory-hash.ts";

/** Inode and type of a name as one number: small integers up to inode 2^23, and no object for each of a million names. */
const TYPES = 256;
/** In front of each packed name: inode in 4 bytes, type and length. */
const PACKED_HEADER_BYTES = 6;

/** Names of a directory or of one of its leaves. */
export class NameMap {
  readonly #names = new Map<ByteString, number>();
  #usedBytes = 0;

  /** The names that `pack` gave. */
  static unpack(packed: Uint8Array): NameMap {
    const names = new NameMap();
    const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length);
    for (let at = 0; at < bytes.length;) {
      const end = at + PACKED_HEADER_BYTES + bytes[at + 5];
      names.set(bytes.toString("latin1", at + PACKED_HEADER_BYTES, end), bytes.readUInt32LE(at), bytes[at + 4]);
      at = end;
    }
    return names;
  }

  pack(): Uint8Array {
    let length = 0;
    for (const name of this.#names.keys()) length += PACKED_HEADER_BYTES + name.length;
    const bytes = Buffer.allocUnsafe(length);
    let at = 0;
    for (const [name, value] of this.#names) {
      bytes.writeUInt32LE(Math.floor(value / TYPES), at);
      bytes[at + 4] = value % TYPES;
      bytes[at + 5] = name.length;
      at += PACKED_HEADER_BYTES;
      for (let index = 0; index < name.length; index++) bytes[at++] = name.charCodeAt(index);
    }
    return bytes;
  }

  get size(): number {
    return this.#names.size;
  }

  /** Bytes that the names take in blocks. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  has(name: ByteString): boolean {
    return this.#names.has(name);
  }

  inode(name: ByteString): number | undefined {
    const value = this.#names.get(name);
    return value === undefined ? undefined : Math.floor(value / TYPES);
  }

  /** A name that is there. */
  entry(name: ByteString): DirectoryEntry {
    const value = this.#names.get(name)!;
    return { name, inode: Math.floor(value / TYPES), type: value % TYPES };
  }

  *entries(): Generator<DirectoryEntry> {
    for (const name of this.#names.keys()) yield this.entry(name);
  }

  /** Adds a name that is not there. */
  set(name: ByteString, inode: number, type: number): void {
    this.#names.set(name, inode * TYPES + type);
    this.#usedBytes += entryBytes(name.length);
  }

  /** Adds a name as another map has it. */
  take(name: ByteString, from: NameMap): void {
    this.#names.set(name, from.#names.get(name)!);
    this.#usedBytes += entryBytes(name.length);
  }

  delete(name: ByteString): boolean {
    if (!this.#names.delete(name)) return false;
    this.#usedBytes -= entryBytes(name.length);
    return true;
  }

  /** All names in byte order. */
  sorted(): ByteString[] {
    // The default order compares UTF-16 units, which are the bytes.
    return [...this.#names.keys()].sort();
  }
}

/** Names and their hashes, by hash and, where that is equal, in byte order. */
export interface HashedNames {
  readonly names: readonly ByteString[];
  readonly hashes: readonly number[];
}

/** Above this number of names, hash and position do not fit the 53 bits of a number. */
const MAX_POSITIONS = 2 ** 21;

/** Sorts numbers that hold hash and position: that takes a fraction of the time of comparing objects. */
export function hashedInOrder(map: NameMap, hash: DirectoryHash): HashedNames {
  const sorted = map.sorted();
  if (sorted.length > MAX_POSITIONS) return hashedByComparing(sorted, hash);
  const keys = new Float64Array(sorted.length);
  for (let at = 0; at < keys.length; at++) keys[at] = hashName(sorted[at], hash) * MAX_POSITIONS + at;
  keys.sort();
  const names: ByteString[] = [];
  const hashes: number[] = [];
  for (const key of keys) {
    names.push(sorted[key % MAX_POSITIONS]);
    hashes.push(Math.floor(key / MAX_POSITIONS));
  }
  return { names, hashes };
}

function hashedByComparing(sorted: readonly ByteString[], hash: DirectoryHash): HashedNames {
  const hashed = sorted.map((name) => ({ name, hash: hashName(name, hash) })).sort((a, b) => a.hash - b.hash);
  return { names: hashed.map(({ name }) => name), hashes: hashed.map((one) => one.hash) };
}
