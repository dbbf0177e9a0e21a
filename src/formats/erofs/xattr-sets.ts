import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { areaBytes, MAX_AREA_BYTES, MAX_VALUE_BYTES, type Xattr } from "./xattr.ts";

/** The set of an inode that has no attributes. */
export const NO_XATTRS = 0;

const ACL_NAMES = new Set(["system.posix_acl_access", "system.posix_acl_default"]);
const ACL_VERSION = 2;

/** Sets of attributes by number; equal attributes and equal sets are kept once. */
export class XattrSets {
  readonly #pairs: Xattr[] = [];
  readonly #pairNumbers = new Map<string, number>();
  readonly #sets: (readonly number[])[] = [[]];
  readonly #setNumbers = new Map<string, number>([["", NO_XATTRS]]);

  /** The number of a set. `of` names whom it belongs to, for the message of `UNSUPPORTED` if it cannot be stored. */
  add(xattrs: ReadonlyMap<ByteString, Uint8Array>, of: string): number {
    if (xattrs.size === 0) return NO_XATTRS;
    const sorted = [...xattrs].map(([name, value]) => ({ name, value })).sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { name, value } of sorted) {
      if (ACL_NAMES.has(name) && !isAcl(value))
        throw corrupt(`${of}: ${name} has ${value.length} bytes that are not an access control list of version ${ACL_VERSION}`);
      if (value.length > MAX_VALUE_BYTES)
        throw unsupported(`${of}: attribute ${name} has ${value.length} bytes; EROFS holds at most ${MAX_VALUE_BYTES}`);
    }
    const bytes = areaBytes(0, sorted);
    if (bytes > MAX_AREA_BYTES) throw unsupported(`${of}: its attributes take ${bytes} bytes; EROFS holds at most ${MAX_AREA_BYTES}`);
    const pairs = sorted.map((xattr) => this.#pairNumber(xattr));
    return numberOf(pairs.join(), pairs, this.#sets, this.#setNumbers);
  }

  #pairNumber(xattr: Xattr): number {
    const key = `${xattr.name}\0${Buffer.from(xattr.value).toString("latin1")}`;
    return numberOf(key, xattr, this.#pairs, this.#pairNumbers);
  }

  /** The attributes of a set by their own numbers, in the order of their names. */
  pairs(set: number): readonly number[] {
    return this.#sets[set];
  }

  pair(number: number): Xattr {
    return this.#pairs[number];
  }
}

/** The kernel fails reads of a list that is none, and with them every check of permissions. */
function isAcl(value: Uint8Array): boolean {
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  return value.length >= 4 && value.length % 8 === 4 && view.getUint32(0, true) === ACL_VERSION;
}

/** The place of a value in a list without repetitions. */
function numberOf<T>(key: string, value: T, list: T[], numbers: Map<string, number>): number {
  const known = numbers.get(key);
  if (known !== undefined) return known;
  numbers.set(key, list.length);
  return list.push(value) - 1;
}
