import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { checkRange, type ByteSource } from "../bytes/source.ts";
import { ReadAhead } from "./read-ahead.ts";
import { FetchClaim, withdrawClaim } from "./fetch-claim.ts";
import { bySegment, SEGMENT_CHUNKS, type SegmentFile } from "./segment-file.ts";
import type { SegmentPool } from "./segment-pool.ts";
import { SharedChunks } from "./shared-chunks.ts";

/** Bytes fetched but not yet on disk that one source may hold before its readers wait for the disk. */
const MAX_UNSTORED_BYTES = 16 * 2 ** 20;

/** Between two looks at what another process fetches. */
const LOOK_MS = 10;

/** Where a chunk is to be had: on disk, soon on disk as another process fetches it, or from the inner source alone. */
type Whereabouts = "stored" | "claimed" | "absent";

/** Neighbouring chunks on their way from the disk or from the inner source. */
interface Run extends RunState {
  readonly bytes: Promise<Uint8Array>;
}

interface RunState {
  readonly first: number;
  /** Its bytes turned out to be wrong: they are neither handed out nor stored any more. */
  discarded: boolean;
}

/**
 * A blob read through the cache. Chunks that are missing, or not what was stored, come from the inner source:
 * neighbours in one read, and once for all who wait for them, in this process and in others that share the directory.
 */
export class CachedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** For threads that read cached chunks without this object. */
  readonly shared: SharedChunks;
  readonly #pool: SegmentPool;
  readonly #key: string;
  readonly #inner: ByteSource;
  readonly #segments = new Map<number, Promise<SegmentFile | undefined>>();
  /** Those of `#segments` that are open by now. */
  readonly #opened = new Map<number, SegmentFile>();
  readonly #running = new Map<number, Run>();
  readonly #storing = new Set<Promise<void>>();
  readonly #readAhead = new ReadAhead();
  #isRight: (offset: number, bytes: Uint8Array) => boolean = () => true;
  #unstoredBytes = 0;
  #closed = false;

  constructor(pool: SegmentPool, key: string, inner: ByteSource) {
    this.name = inner.name;
    this.size = inner.size;
    this.shared = SharedChunks.create(inner.size, pool.chunkBytes, SEGMENT_CHUNKS, pool.ticks);
    this.#pool = pool;
    this.#key = key;
    this.#inner = inner;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    if (length === 0) return new Uint8Array(0);
    const { chunkBytes } = this.#pool;
    const first = Math.floor(offset / chunkBytes);
    const last = Math.floor((offset + length - 1) / chunkBytes);
    await this.#look(first, last);
    const target = Buffer.allocUnsafe(length);
    await Promise.all(this.#runsFor(first, last).map(async (run) => copyRun(await run.bytes, run.first * chunkBytes, target, offset)));
    if (this.#unstoredBytes > MAX_UNSTORED_BYTES) await this.settled();
    return target;
  }

  /**
   * From now on, what is fetched is kept only if `isRight` says that the blob has these bytes at this offset. Who waits for them gets them
   * nevertheless, and finds the same.
   */
  keepOnly(isRight: (offset: number, bytes: Uint8Array) => boolean): void {
    this.#isRight = isRight;
  }

  /** Forgets what is stored of a range, so that it is fetched anew: for content that turned out to be wrong. */
  discard(offset: number, length: number): void {
    checkRange(this, offset, length);
    this.#inner.distrust?.();
    const { chunkBytes } = this.#pool;
    const first = Math.floor(offset / chunkBytes);
    const end = Math.ceil((offset + length) / chunkBytes);
    for (let chunk = first; chunk < end; chunk++) {
      const run = this.#running.get(chunk);
      if (run !== undefined) run.discarded = true;
      this.#running.delete(chunk);
      this.shared.markAbsent(chunk);
    }
    for (const part of bySegment(first, end - first)) {
      // Nobody else is to find it either. What is not open has not been read.
      const cleared = this.#opened.get(part.index)?.distrust(part.first, part.count);
      if (cleared) this.#inBackground(cleared);
    }
  }

  /** Where the chunks from `offset` on, up to `end`, stop being like the first of them: stored, or not. Nothing is fetched. */
  async stretch(offset: number, end: number): Promise<{ readonly end: number; readonly isStored: boolean }> {
    checkRange(this, offset, end - offset);
    const { chunkBytes } = this.#pool;
    const first = Math.floor(offset / chunkBytes);
    const stop = Math.ceil(end / chunkBytes);
    for (let index = Math.floor(first / SEGMENT_CHUNKS); index * SEGMENT_CHUNKS < stop; index++) {
      if (await this.#pool.hasSegment(this.#key, index)) await this.#segment(index);
    }
    const isStored = this.shared.isStored(first);
    let chunk = first + 1;
    while (chunk < stop && this.shared.isStored(chunk) === isStored) chunk++;
    return { end: Math.min(chunk * chunkBytes, end), isStored };
  }

  /** Resolves when everything fetched so far is on disk (or was refused by it). */
  async settled(): Promise<void> {
    await Promise.all(this.#storing);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.settled();
    for (const opening of this.#segments.values()) {
      const segment = await opening;
      if (segment !== undefined) await this.#pool.closeSegment(segment);
    }
    await this.#inner.close();
  }

  /** Runs that together cover the chunks; starts those that nobody has started. */
  #runsFor(first: number, last: number): Run[] {
    const runs = new Set<Run>();
    let firstMissing: number | undefined;
    for (let chunk = first; chunk <= last; chunk++) {
      const running = this.#running.get(chunk);
      if (running === undefined && !this.shared.isStored(chunk)) firstMissing ??= chunk;
      runs.add(running ?? this.#startRun(chunk, last));
    }
    if (firstMissing !== undefined) {
      const ahead = this.#readAhead.after(firstMissing, last + 1, this.#pool.chunkBytes);
      if (ahead > 0) this.#inBackground(this.#fetchAhead(last + 1, ahead));
    }
    return [...runs];
  }

  #startRun(first: number, last: number): Run {
    const where = this.#whereIs(first);
    const count = this.#alike(first, last, where);
    if (where === "absent") return this.#startFetch(first, count);
    const run = this.#start(
      first,
      count,
      async (state) => await (where === "stored" ? this.#load(state, count) : this.#await(state, count)),
    );
    this.#whenDone(run, count, async () => {});
    return run;
  }

  #whereIs(chunk: number): Whereabouts {
    if (this.shared.isStored(chunk)) return "stored";
    return this.#opened.get(Math.floor(chunk / SEGMENT_CHUNKS))?.isClaimed(chunk) === true ? "claimed" : "absent";
  }

  /** How many chunks from `first` on can be had in the same way. */
  #alike(first: number, last: number, where: Whereabouts): number {
    const segment = Math.floor(first / SEGMENT_CHUNKS);
    let chunk = first + 1;
    while (chunk <= last && !this.#running.has(chunk) && this.#whereIs(chunk) === where) {
      if (where !== "absent" && Math.floor(chunk / SEGMENT_CHUNKS) !== segment) break;
      chunk++;
    }
    return chunk - first;
  }

  async #fetchAhead(first: number, chunks: number): Promise<void> {
    const last = Math.min(first + chunks, this.shared.data.states.length) - 1;
    if (last < first) return;
    await this.#look(first, last);
    if (this.#closed || this.#running.has(first) || this.#whereIs(first) !== "absent") return;
    this.#startFetch(first, this.#alike(first, last, "absent"));
  }

  #startFetch(first: number, count: number): Run {
    const run = this.#start(first, count, async () => await this.#fetch(first, count));
    this.#whenDone(run, count, async (bytes) => await this.#store(run, count, bytes));
    return run;
  }

  async #fetch(first: number, count: number): Promise<Uint8Array> {
    const claim = new FetchClaim(this.#opened, first, count);
    try {
      return await this.#inner.read(first * this.#pool.chunkBytes, this.#lengthOf(first, count));
    } catch (error) {
      withdrawClaim(this.#opened, first, count);
      throw error;
    } finally {
      claim.end();
    }
  }

  /** Chunks of one segment that another process fetches; they are fetched here when it does not bring them. */
  async #await(run: RunState, count: number): Promise<Uint8Array> {
    const { first } = run;
    for (;;) {
      await sleep(LOOK_MS);
      await this.#lookInto(Math.floor(first / SEGMENT_CHUNKS));
      const where = Array.from({ length: count }, (_, i) => this.#whereIs(first + i));
      if (where.every((each) => each === "stored")) return await this.#load(run, count);
      if (this.#closed || where.includes("absent")) return await this.#refetch(run, count);
    }
  }

  /** Something that closing waits for, and that nobody else does. */
  #inBackground(work: Promise<void>): void {
    const task = work.catch((error: unknown) => this.#pool.diskFailed(error)).finally(() => this.#storing.delete(task));
    this.#storing.add(task);
  }

  #start(first: number, count: number, begin: (state: RunState) => Promise<Uint8Array>): Run {
    const state = { first, discarded: false };
    const run: Run = Object.assign(state, { bytes: begin(state) });
    for (let chunk = first; chunk < first + count; chunk++) this.#running.set(chunk, run);
    return run;
  }

  /** Keeps a run registered until its bytes are stored; a failed one only concerns those who wait for it. */
  #whenDone(run: Run, count: number, store: (bytes: Uint8Array) => Promise<void>): void {
    const storing = run.bytes
      .then(store, () => {})
      .finally(() => {
        for (let chunk = run.first; chunk < run.first + count; chunk++) {
          if (this.#running.get(chunk) === run) this.#running.delete(chunk);
        }
        this.#storing.delete(storing);
      });
    this.#storing.add(storing);
  }

  /** Chunks from one segment file, each checked; what is wrong is fetched instead. */
  async #load(run: RunState, count: number): Promise<Uint8Array> {
    const { first } = run;
    const index = Math.floor(first / SEGMENT_CHUNKS);
    const wanted = this.#lengthOf(first, count);
    const bytes = await this.#readSegment(index, first, wanted);
    this.shared.touch(index);
    const { chunkBytes } = this.#pool;
    for (let chunk = first; chunk < first + count; chunk++) {
      const at = (chunk - first) * chunkBytes;
      if (this.shared.isIntact(chunk, bytes.subarray(at, at + this.shared.lengthOf(chunk)))) continue;
      this.shared.markAbsent(chunk);
      return await this.#refetch(run, count);
    }
    return bytes;
  }

  /** Nothing when the segment was evicted or cannot be read: its chunks then count as damaged. */
  async #readSegment(index: number, firstChunk: number, bytes: number): Promise<Uint8Array> {
    const opened = this.#segments.get(index);
    try {
      return (await (await opened)?.read(firstChunk, bytes)) ?? new Uint8Array(0);
    } catch (error) {
      if (this.#segments.get(index) === opened) this.#pool.diskFailed(error);
      return new Uint8Array(0);
    }
  }

  async #refetch(run: RunState, count: number): Promise<Uint8Array> {
    const bytes = await this.#fetch(run.first, count);
    await this.#store(run, count, bytes);
    return bytes;
  }

  async #store(run: RunState, count: number, bytes: Uint8Array): Promise<void> {
    const { first } = run;
    this.#unstoredBytes += bytes.length;
    try {
      if (!run.discarded && !this.#isRight(first * this.#pool.chunkBytes, bytes)) this.discard(first * this.#pool.chunkBytes, bytes.length);
      for (const part of bySegment(first, count)) {
        const start = (part.first - first) * this.#pool.chunkBytes;
        const piece = bytes.subarray(start, start + this.#lengthOf(part.first, part.count));
        try {
          await this.#storeInSegment(run, part.index, part.first, piece);
        } catch (error) {
          if (!(await this.#pool.madeRoomAfter(error))) throw error;
          await this.#storeInSegment(run, part.index, part.first, piece);
        }
      }
    } catch (error) {
      this.#pool.diskFailed(error);
      run.discarded = true;
    } finally {
      // Nobody is to wait for what does not come, neither we.
      if (run.discarded) withdrawClaim(this.#opened, first, count);
      this.#unstoredBytes -= bytes.length;
    }
  }

  async #storeInSegment(run: RunState, index: number, first: number, bytes: Uint8Array): Promise<void> {
    const segment = await this.#segment(index);
    if (segment === undefined || run.discarded) return;
    const { chunkBytes } = this.#pool;
    const count = Math.ceil(bytes.length / chunkBytes);
    const checksums = Array.from({ length: count }, (_, i) => crc32(bytes.subarray(i * chunkBytes, (i + 1) * chunkBytes)));
    await segment.write(first, checksums, bytes, () => !run.discarded);
    const evicted = (await this.#segments.get(index)) !== segment;
    if (evicted || run.discarded) return;
    checksums.forEach((checksum, i) => this.shared.markStored(first + i, checksum | 0));
    this.shared.touch(index);
    await this.#pool.stored(bytes.length);
  }

  /** Opens the segments of chunks, and sees what other processes have stored of those that are missing here, or are fetching. */
  async #look(firstChunk: number, lastChunk: number): Promise<void> {
    for (const { index, first, count } of bySegment(firstChunk, lastChunk - firstChunk + 1)) {
      if (this.#opened.get(index) === undefined || this.#isAnyAbsent(first, first + count - 1)) await this.#lookInto(index);
    }
  }

  async #lookInto(index: number): Promise<void> {
    const opened = this.#opened.get(index);
    try {
      if (opened !== undefined) {
        if (await opened.look()) return;
        await this.#pool.closeSegment(opened);
      }
    } catch (error) {
      this.#pool.diskFailed(error);
      return;
    }
    await this.#segment(index);
  }

  #isAnyAbsent(first: number, last: number): boolean {
    for (let chunk = first; chunk <= last; chunk++) if (!this.shared.isStored(chunk) && !this.#running.has(chunk)) return true;
    return false;
  }

  async #segment(index: number): Promise<SegmentFile | undefined> {
    const opened = this.#segments.get(index);
    if (opened !== undefined) return await opened;
    const opening = this.#pool.openSegment(this.#key, index, this.shared, () => {
      this.#segments.delete(index);
      this.#opened.delete(index);
    });
    this.#segments.set(index, opening);
    const segment = await opening;
    if (segment !== undefined && this.#segments.get(index) === opening) this.#opened.set(index, segment);
    return segment;
  }

  #lengthOf(first: number, count: number): number {
    const { chunkBytes } = this.#pool;
    return Math.min(count * chunkBytes, this.size - first * chunkBytes);
  }
}

function copyRun(bytes: Uint8Array, runOffset: number, target: Uint8Array, targetOffset: number): void {
  const start = Math.max(runOffset, targetOffset);
  const end = Math.min(runOffset + bytes.length, targetOffset + target.length);
  target.set(bytes.subarray(start - runOffset, end - runOffset), start - targetOffset);
}
