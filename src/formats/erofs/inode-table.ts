import type { Timespec } from "../../tree/entry.ts";

/** What an inode is, apart from names and the data of symlinks, directories and files with holes. */
export interface InodeFields {
  /** Kind and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of a regular file; 0 for everything else. */
  readonly size: number;
  readonly mtime: Timespec;
  readonly xattrSet: number;
  /** First block of a file in one piece, `NO_BLOCK` for one with holes; device number of a device. */
  readonly data: number;
}

const FIRST_CAPACITY = 1024;

/** Inodes of a tree in packed form, numbered from 0 up; numbers of removed ones are used again. */
export class InodeTable {
  #mode = new Uint16Array(FIRST_CAPACITY);
  #uid = new Uint32Array(FIRST_CAPACITY);
  #gid = new Uint32Array(FIRST_CAPACITY);
  #size = new Float64Array(FIRST_CAPACITY);
  #seconds = new Float64Array(FIRST_CAPACITY);
  #nanoseconds = new Uint32Array(FIRST_CAPACITY);
  #xattrSet = new Uint32Array(FIRST_CAPACITY);
  #data = new Uint32Array(FIRST_CAPACITY);
  #links = new Uint32Array(FIRST_CAPACITY);
  readonly #free: number[] = [];
  #end = 0;

  /** Numbers are below this. */
  get end(): number {
    return this.#end;
  }

  /** Adds an inode without names. */
  add(fields: InodeFields): number {
    const number = this.#free.pop() ?? this.#end++;
    if (number >= this.#mode.length) this.#grow();
    this.#links[number] = 0;
    this.set(number, fields);
    return number;
  }

  set(number: number, fields: InodeFields): void {
    this.#mode[number] = fields.mode;
    this.#uid[number] = fields.uid;
    this.#gid[number] = fields.gid;
    this.#size[number] = fields.size;
    this.#seconds[number] = fields.mtime.seconds;
    this.#nanoseconds[number] = fields.mtime.nanoseconds;
    this.#xattrSet[number] = fields.xattrSet;
    this.#data[number] = fields.data;
  }

  free(number: number): void {
    this.#free.push(number);
  }

  mode(number: number): number {
    return this.#mode[number];
  }

  uid(number: number): number {
    return this.#uid[number];
  }

  gid(number: number): number {
    return this.#gid[number];
  }

  size(number: number): number {
    return this.#size[number];
  }

  seconds(number: number): number {
    return this.#seconds[number];
  }

  nanoseconds(number: number): number {
    return this.#nanoseconds[number];
  }

  xattrSet(number: number): number {
    return this.#xattrSet[number];
  }

  data(number: number): number {
    return this.#data[number];
  }

  /** Names that lead to the inode. */
  links(number: number): number {
    return this.#links[number];
  }

  addLink(number: number): void {
    this.#links[number]++;
  }

  /** Takes one link away and says how many are left. */
  removeLink(number: number): number {
    return --this.#links[number];
  }

  #grow(): void {
    const capacity = this.#mode.length * 2;
    this.#mode = grown(this.#mode, new Uint16Array(capacity));
    this.#uid = grown(this.#uid, new Uint32Array(capacity));
    this.#gid = grown(this.#gid, new Uint32Array(capacity));
    this.#size = grown(this.#size, new Float64Array(capacity));
    this.#seconds = grown(this.#seconds, new Float64Array(capacity));
    this.#nanoseconds = grown(this.#nanoseconds, new Uint32Array(capacity));
    this.#xattrSet = grown(this.#xattrSet, new Uint32Array(capacity));
    this.#data = grown(this.#data, new Uint32Array(capacity));
    this.#links = grown(this.#links, new Uint32Array(capacity));
  }
}

function grown<T extends Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
