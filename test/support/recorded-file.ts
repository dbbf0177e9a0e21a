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

/** What a file holds, in the blocks that its filesystem has room for. */
class Content {
  size = 0;
  /** Never changed, only replaced. */
  #blocks = new Map<number, Uint8Array>();

  clone(): Content {
    const copy = new Content();
    copy.size = this.size;
    copy.#blocks = new Map(this.#blocks);
    return copy;
  }

  has(block: number): boolean {
    return this.#blocks.has(block);
  }

  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (const { block, from, to, at } of pieces(offset, length)) {
      const held = this.#blocks.get(block);
      if (held !== undefined) bytes.set(held.subarray(from, to), at);
    }
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    for (const { block, from, to, at } of pieces(offset, bytes.length)) {
      const held = this.#blocks.get(block)?.slice() ?? new Uint8Array(BLOCK);
      held.set(bytes.subarray(at, at + to - from), from);
      this.#blocks.set(block, held);
    }
    this.size = Math.max(this.size, offset + bytes.length);
  }

  truncate(size: number): void {
    const last = Math.floor(size / BLOCK);
    for (const block of this.#blocks.keys()) if (block * BLOCK >= size) this.#blocks.delete(block);
    const held = this.#blocks.get(last)?.slice();
    if (held !== undefined && size < this.size) this.#blocks.set(last, held.fill(0, size - last * BLOCK));
    this.size = size;
  }

  extents(): Extent[] {
    const found: { offset: number; length: number }[] = [];
    for (const block of [...this.#blocks.keys()].sort((a, b) => a - b)) {
      const last = found.at(-1);
      if (last !== undefined && last.offset + last.length === block * BLOCK) last.length += BLOCK;
      else found.push({ offset: block * BLOCK, length: BLOCK });
    }
    return found;
  }
}

/** The parts of blocks that a range is made of; `at` is the place in the range. */
function* pieces(offset: number, length: number): Generator<{ block: number; from: number; to: number; at: number }> {
  for (let at = 0; at < length;) {
    const block = Math.floor((offset + at) / BLOCK);
    const from = offset + at - block * BLOCK;
    const to = Math.min(BLOCK, from + length - at);
    yield { block, from, to, at };
    at += to - from;
  }
}

type Operation =
  | { readonly file: RecordedFile; readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly file: RecordedFile; readonly kind: "truncate"; readonly size: number }
  | { readonly file: RecordedFile; readonly kind: "flush"; readonly began: number };

/** Files in memory, and everything that was done to them, in its order. */
export class RecordedDisk {
  readonly operations: Operation[] = [];
  readonly #delays = chanceOf(4711);

  /** Some time passes, so that what runs at once overlaps in many ways. */
  async delay(): Promise<void> {
    for (let turns = this.#delays.below(4) ** 3; turns >= 0; turns--) await Promise.resolve();
  }

  /** A new file, which holds `bytes` already. */
  file(name: string, bytes: Uint8Array = new Uint8Array(0)): RecordedFile {
    const content = new Content();
    content.write(0, bytes);
    return new RecordedFile(this, name, content);
  }

  /**
   * The files as they are when their process is killed behind the first `count` operations, on a disk of their own: all that was done is
   * there, but a power cut may still take what was not flushed.
   */
  killed(files: readonly RecordedFile[], count: number): RecordedFile[] {
    const disk = new RecordedDisk();
    const copies = new Map(files.map((file) => [file, new RecordedFile(disk, file.name, file.initial.clone())]));
    for (const operation of this.operations.slice(0, count)) {
      const file = copies.get(operation.file);
      if (file === undefined) continue;
      apply(file.content, operation);
      // Before a flush no more was done than is done here.
      disk.operations.push(
        operation.kind === "flush"
          ? { file, kind: "flush", began: disk.#begun(this.operations, operation.began, copies) }
          : { ...operation, file },
      );
    }
    return [...copies.values()];
  }

  /** How many of the first operations are of those files. */
  #begun(operations: readonly Operation[], count: number, files: ReadonlyMap<RecordedFile, RecordedFile>): number {
    return operations.slice(0, count).filter(({ file }) => files.has(file)).length;
  }

  /**
   * A file as it may be after a power cut behind the first `count` operations, on a disk of its own: what was flushed is there; of the rest
   * any part is, in any order, down to single sectors. Only a block that the file had no room for before appears whole or not at all:
   * filesystems make it part of a file when it has been written.
   */
  cut(file: RecordedFile, count: number, chance: Chance, onto: RecordedDisk): RecordedFile {
    const done = this.operations.slice(0, count);
    let flushed = 0;
    for (const operation of done) {
      if (operation.kind === "flush" && operation.file === file) flushed = Math.max(flushed, operation.began);
    }
    const content = file.initial.clone();
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
    return new RecordedFile(onto, file.name, content);
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
  const before = content.clone();
  const refused = new Set<number>();
  for (let at = offset; at < offset + bytes.length;) {
    const end = Math.min((Math.floor(at / SECTOR) + 1) * SECTOR, offset + bytes.length);
    const block = Math.floor(at / BLOCK);
    const isNew = !before.has(block);
    if (isNew && at % BLOCK === 0 && chance.below(2) === 0) refused.add(block);
    if (isNew ? !refused.has(block) : chance.below(2) === 0) content.write(at, bytes.subarray(at - offset, end - offset));
    at = end;
  }
  if (grows && content.size < offset + bytes.length) content.truncate(offset + bytes.length);
}

/** A file of a `RecordedDisk`. */
export class RecordedFile implements WritableFile, ByteSource {
  readonly name: string;
  readonly disk: RecordedDisk;
  readonly content: Content;
  /** What it held before the first operation. */
  readonly initial: Content;
  closed = false;
  /** Writes wait for it. */
  held: Promise<void> = Promise.resolve();
  /** What the next write fails with, and the next flush. */
  failure: Error | undefined;
  flushFailure: Error | undefined;

  constructor(disk: RecordedDisk, name: string, content: Content) {
    this.disk = disk;
    this.name = name;
    this.content = content;
    this.initial = content.clone();
  }

  get size(): number {
    return this.content.size;
  }

  /** Where the file has data. */
  get extents(): Extent[] {
    return this.content.extents();
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#checkOpen();
    await this.disk.delay();
    checkRange(this, offset, length);
    return this.content.read(offset, length);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#checkOpen();
    await this.held;
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    await this.disk.delay();
    this.content.write(offset, bytes);
    this.disk.operations.push({ file: this, kind: "write", offset, bytes: bytes.slice() });
    await this.disk.delay();
  }

  async truncate(size: number): Promise<void> {
    this.#checkOpen();
    await this.disk.delay();
    this.content.truncate(size);
    this.disk.operations.push({ file: this, kind: "truncate", size });
  }

  async flush(): Promise<void> {
    this.#checkOpen();
    const { flushFailure } = this;
    this.flushFailure = undefined;
    if (flushFailure !== undefined) throw flushFailure;
    const began = this.disk.operations.length;
    await this.disk.delay();
    this.disk.operations.push({ file: this, kind: "flush", began });
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  #checkOpen(): void {
    if (this.closed) throw new Error(`${this.name} is closed`);
  }
}
