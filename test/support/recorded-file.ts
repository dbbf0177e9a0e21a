import { checkRange, type ByteSource } from "../../src/bytes/source.ts";
import type { WritableFile } from "../../src/bytes/writable-file.ts";

const SECTOR = 512;
const BLOCK = 4096;

export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** Chance from a seed. */
export interface Chance {
  /** A whole number below `limit`. */
  below(limit: number): number;
}

export function chanceOf(seed: number): Chance {
  let state = seed >>> 0 || 1;
  return {
    below(limit) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % limit;
    },
  };
}

/** What a file holds: its bytes, and which blocks its filesystem has room for. */
class Content {
  bytes = new Uint8Array(0);
  size = 0;
  readonly blocks = new Set<number>();

  clone(): Content {
    const copy = new Content();
    copy.bytes = this.bytes.slice(0, this.size);
    copy.size = this.size;
    for (const block of this.blocks) copy.blocks.add(block);
    return copy;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#reserve(offset + bytes.length);
    this.bytes.set(bytes, offset);
    this.size = Math.max(this.size, offset + bytes.length);
    if (bytes.length === 0) return;
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + bytes.length; block++) this.blocks.add(block);
  }

  truncate(size: number): void {
    this.#reserve(size);
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
    for (const block of this.blocks) if (block * BLOCK >= size) this.blocks.delete(block);
  }

  extents(): Extent[] {
    const found: { offset: number; length: number }[] = [];
    for (const block of [...this.blocks].sort((a, b) => a - b)) {
      const last = found.at(-1);
      if (last !== undefined && last.offset + last.length === block * BLOCK) last.length += BLOCK;
      else found.push({ offset: block * BLOCK, length: BLOCK });
    }
    return found;
  }

  #reserve(size: number): void {
    if (size <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(size, this.bytes.length * 2));
    grown.set(this.bytes);
    this.bytes = grown;
  }
}

type Operation =
  | { readonly file: RecordedFile; readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly file: RecordedFile; readonly kind: "truncate"; readonly size: number }
  | { readonly file: RecordedFile; readonly kind: "flush"; readonly began: number };

/** Files in memory, and everything that was done to them, in its order. */
export class RecordedDisk {
  readonly operations: Operation[] = [];
  readonly #files: RecordedFile[] = [];

  file(name: string): RecordedFile {
    const file = new RecordedFile(this, name, new Content());
    this.#files.push(file);
    return file;
  }

  /**
   * The files as they may be after a power cut behind the first `count` operations: what was flushed is there; of the rest any part is, in
   * any order, down to single sectors. Only a block that the file had no room for before appears whole or not at all: filesystems make
   * it part of a file when it has been written.
   */
  cut(count: number, chance: Chance): Map<RecordedFile, RecordedFile> {
    const after = new RecordedDisk();
    const result = new Map<RecordedFile, RecordedFile>();
    for (const file of this.#files) result.set(file, after.#adopt(file.name, this.#surviving(file, count, chance)));
    return result;
  }

  #adopt(name: string, content: Content): RecordedFile {
    const file = new RecordedFile(this, name, content);
    this.#files.push(file);
    return file;
  }

  #surviving(file: RecordedFile, count: number, chance: Chance): Content {
    const done = this.operations.slice(0, count);
    let flushed = 0;
    for (const operation of done) {
      if (operation.kind === "flush" && operation.file === file) flushed = Math.max(flushed, operation.began);
    }
    const content = new Content();
    for (const operation of done.slice(0, flushed)) if (operation.file === file) apply(content, operation);
    const loose = done.slice(flushed).filter((operation) => operation.file === file && operation.kind !== "flush");
    // Mostly everything or a prefix is there; sometimes any part in any order.
    const mood = chance.below(4);
    if (mood === 0) for (const operation of loose) apply(content, operation);
    if (mood === 1) for (const operation of loose.slice(0, chance.below(loose.length + 1))) apply(content, operation);
    if (mood >= 2) {
      for (let i = loose.length - 1; i > 0; i--) {
        const j = chance.below(i + 1);
        [loose[i], loose[j]] = [loose[j], loose[i]];
      }
      for (const operation of loose) if (chance.below(4) > 0) applyPartly(content, operation, chance);
    }
    return content;
  }
}

function apply(content: Content, operation: Operation): void {
  if (operation.kind === "write") content.write(operation.offset, operation.bytes);
  if (operation.kind === "truncate") content.truncate(operation.size);
}

function applyPartly(content: Content, operation: Operation, chance: Chance): void {
  if (operation.kind !== "write" || chance.below(2) === 0) {
    apply(content, operation);
    return;
  }
  const { offset, bytes } = operation;
  const grows = chance.below(2) === 0;
  const known = new Set(content.blocks);
  const refused = new Set<number>();
  for (let at = offset; at < offset + bytes.length;) {
    const end = Math.min((Math.floor(at / SECTOR) + 1) * SECTOR, offset + bytes.length);
    const block = Math.floor(at / BLOCK);
    const isNew = !known.has(block);
    if (isNew && at % BLOCK === 0 && chance.below(2) === 0) refused.add(block);
    if (isNew ? !refused.has(block) : chance.below(2) === 0) content.write(at, bytes.subarray(at - offset, end - offset));
    at = end;
  }
  if (grows && content.size < offset + bytes.length) content.truncate(offset + bytes.length);
}

/** A file of a `RecordedDisk`. */
export class RecordedFile implements WritableFile, ByteSource {
  readonly name: string;
  readonly #disk: RecordedDisk;
  readonly #content: Content;
  closed = false;

  constructor(disk: RecordedDisk, name: string, content: Content) {
    this.#disk = disk;
    this.name = name;
    this.#content = content;
  }

  get size(): number {
    return this.#content.size;
  }

  /** Where the file has data. */
  get extents(): Extent[] {
    return this.#content.extents();
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#checkOpen();
    await turn();
    checkRange(this, offset, length);
    return this.#content.bytes.slice(offset, offset + length);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#checkOpen();
    await turn();
    this.#content.write(offset, bytes);
    this.#disk.operations.push({ file: this, kind: "write", offset, bytes: bytes.slice() });
    await turn();
  }

  async truncate(size: number): Promise<void> {
    this.#checkOpen();
    this.#content.truncate(size);
    this.#disk.operations.push({ file: this, kind: "truncate", size });
  }

  async flush(): Promise<void> {
    this.#checkOpen();
    const began = this.#disk.operations.length;
    await turn();
    this.#disk.operations.push({ file: this, kind: "flush", began });
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  #checkOpen(): void {
    if (this.closed) throw new Error(`${this.name} is closed`);
  }
}

async function turn(): Promise<void> {
  await Promise.resolve();
}
