import { Worker } from "node:worker_threads";
import type { BlockDevice } from "../../bytes/block-device.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { LazyError, messageOf } from "../../errors.ts";
import { closeFuseDevice, mountFuse, openFuseDevice } from "../../native/fuse-device.ts";
import { unmountIfMounted } from "../../native/mounts.ts";
import { PROGRAM_VERSION } from "../../native/program-version.ts";
import { isDiskFull } from "../disk-full.ts";
import { readRequestLater, writeReply } from "./fuse-connection.ts";
import { encodeReply, encodeReplyHeader, type Change, type ReadRequest } from "./fuse-files.ts";
import { FuseRequests, requestBuffer, type FuseConnection } from "./fuse-requests.ts";
import type { FuseWorkerData, FuseWorkerMessage } from "./fuse-worker.ts";
import { ERRNO, MAX_READ_BYTES, writeOut } from "./protocol.ts";
import { loadSyncReader, type SyncReader, type SyncReaderModule } from "./sync-reader.ts";

/** Name of the file that holds the served content. */
export const CONTENT_NAME = "disk";
/** Name of the file that holds the server's counters. */
const STATS_NAME = "stats";

const CONTENT_FILE = 0;
/** Requests, or bytes, that the main thread takes by itself before it starts workers: more than it takes to mount a file system. */
const BUSY_REQUESTS = 1024;
const BUSY_BYTES = 16 << 20;

export interface FuseServerOptions {
  /** An existing directory to mount on. */
  readonly directory: string;
  /** Can be written if it has a `write`. */
  readonly content: ByteSource | BlockDevice;
  /** Answers what is cached, on any thread; without it every read goes through `content`. */
  readonly reader?: SyncReaderModule | undefined;
  /** Threads that take requests once there is much to do. Until then the main thread does: each takes memory, and time to start. */
  readonly workers: number;
  /** Text of the `stats` file, made for every reader. */
  readonly stats: () => string;
  /** Called when a read of `content` fails; the reader gets EIO. */
  readonly onReadFailure: (error: unknown, offset: number, length: number) => void;
  /** Called when a change of `content` fails; the writer gets EIO. */
  readonly onWriteFailure?: ((error: unknown, change: Change) => void) | undefined;
  /** Called once when a worker cannot start, e.g. because the program was replaced or removed meanwhile: the other threads go on. */
  readonly onStartFailure?: ((error: unknown) => void) | undefined;
}

/** Reads and writes of the content that were answered. */
export interface FuseReadCounts {
  /** At once, from the cache. */
  readonly cachedReads: number;
  readonly cachedBytes: number;
  /** By the main thread, after what had to be fetched. */
  readonly fetchedReads: number;
  readonly fetchedBytes: number;
  readonly failedReads: number;
  readonly writes: number;
  readonly writtenBytes: number;
  readonly discards: number;
  readonly flushes: number;
  readonly failedWrites: number;
}

/**
 * A directory with a file `disk`, whose bytes are a source's, and a file `stats`, mounted through FUSE.
 * The main thread takes requests until there is much to do, and workers from then on. They answer what is cached and leave the rest to the
 * main thread, which waits for what has to be fetched, and for the disk to be written. Where no worker can start, it goes on alone.
 * The main thread must never touch the mount itself: it would wait for its own answer.
 */
export class FuseServer {
  /** Resolves when the file system is unmounted; rejects when a thread fails that has begun to serve. */
  readonly ended: Promise<void>;
  readonly #options: FuseServerOptions;
  readonly #connection: FuseConnection;
  readonly #end: PromiseWithResolvers<void> = Promise.withResolvers();
  /** Threads that take requests, or will. */
  #running = 0;
  /** By thread. */
  readonly #counters: Float64Array[] = [];
  #isHandedOver = false;
  #hasStartFailed = false;
  readonly #main = { reads: 0, bytes: 0, failed: 0 };
  readonly #changes = { writes: 0, writtenBytes: 0, discards: 0, flushes: 0, failedWrites: 0 };
  readonly #release: PromiseWithResolvers<void> = Promise.withResolvers();
  #awaitsRelease = false;
  #statsText = Buffer.alloc(0);

  private constructor(options: FuseServerOptions) {
    this.#options = options;
    const { content } = options;
    const files = [
      { name: CONTENT_NAME, size: content.size, live: false, writable: "write" in content },
      { name: STATS_NAME, size: 0, live: true, writable: false },
    ];
    const openings = new Int32Array(new SharedArrayBuffer(4));
    this.#connection = { descriptor: openFuseDevice(), files, contentFile: CONTENT_FILE, openings };
    this.ended = this.#end.promise;
    this.ended.catch(() => {}); // whoever serves watches it; a failure before that is found by the mount
  }

  static async mount(options: FuseServerOptions): Promise<FuseServer> {
    const reader = options.reader && (await loadSyncReader(options.reader));
    const server = new FuseServer(options);
    try {
      await mountFuse(server.#descriptor, options.directory, MAX_READ_BYTES, server.#device === undefined);
    } catch (error) {
      closeFuseDevice(server.#descriptor);
      throw error;
    }
    void server.#serveHere(reader);
    return server;
  }

  counts(): FuseReadCounts {
    const sum = (slot: number): number => this.#counters.reduce((total, counters) => total + counters[slot], 0);
    const { reads, bytes, failed } = this.#main;
    return { cachedReads: sum(0), cachedBytes: sum(1), fetchedReads: reads, fetchedBytes: bytes, failedReads: failed, ...this.#changes };
  }

  /** How often `disk` is open now. */
  openings(): number {
    return Atomics.load(this.#connection.openings, 0);
  }

  /** Resolves once nobody has `disk` open. Before it is called, openings may come and go. */
  async released(): Promise<void> {
    this.#awaitsRelease = true;
    this.#checkRelease();
    await this.#release.promise;
  }

  /** Unmounts, whoever may still use it: their reads fail, and those that wait fail now. */
  async disconnect(): Promise<void> {
    await unmountIfMounted(this.#options.directory, "forced");
  }

  /** Unmounts if need be, and frees the connection. */
  async close(): Promise<void> {
    await this.disconnect();
    await this.ended;
    closeFuseDevice(this.#descriptor);
  }

  /** The content, if it can be written. */
  get #device(): BlockDevice | undefined {
    const { content } = this.#options;
    return "write" in content ? content : undefined;
  }

  get #descriptor(): number {
    return this.#connection.descriptor;
  }

  /** Takes requests on this thread until others do. Never rejects. */
  async #serveHere(reader: SyncReader | undefined): Promise<void> {
    this.#running++;
    const requests = new FuseRequests(this.#connection, reader, this.#newCounters(), (work) => this.#receive(work));
    const buffer = requestBuffer(this.#connection.files);
    try {
      while (!this.#isHandedOver) {
        const length = await readRequestLater(this.#descriptor, buffer);
        if (length === undefined) break;
        requests.take(buffer.subarray(0, length));
        if (this.#counters.length === 1 && this.#isBusy()) this.#startWorkers();
      }
      this.#threadEnds();
    } catch (cause) {
      this.#end.reject(new LazyError("UNAVAILABLE", `fuse: ${messageOf(cause)}`, { cause }));
    }
  }

  #isBusy(): boolean {
    const { cachedReads, cachedBytes, fetchedReads, fetchedBytes, writes, writtenBytes } = this.counts();
    return cachedReads + fetchedReads + writes >= BUSY_REQUESTS || cachedBytes + fetchedBytes + writtenBytes >= BUSY_BYTES;
  }

  #newCounters(): Float64Array {
    const counters = new Float64Array(new SharedArrayBuffer(16));
    this.#counters.push(counters);
    return counters;
  }

  #startWorkers(): void {
    try {
      for (let worker = 0; worker < this.#options.workers; worker++) this.#startWorker();
    } catch (cause) {
      this.#startFailed(cause);
    }
  }

  #startWorker(): void {
    const { reader } = this.#options;
    const workerData: FuseWorkerData = { version: PROGRAM_VERSION, connection: this.#connection, reader, counters: this.#newCounters() };
    // The descriptor belongs to all threads: no worker may close it or warn about it.
    const worker = new Worker(new URL("fuse-worker.ts", import.meta.url), { workerData, trackUnmanagedFds: false });
    let isServing = false;
    worker.on("message", (message: FuseWorkerMessage) => {
      if (message.kind === "serving") isServing = true;
      this.#receive(message);
    });
    worker.once("error", (cause) => {
      if (isServing) this.#end.reject(new LazyError("UNAVAILABLE", `fuse worker failed: ${messageOf(cause)}`, { cause }));
      else this.#startFailed(cause);
    });
    this.#running++;
    worker.once("exit", () => this.#threadEnds());
  }

  #startFailed(cause: unknown): void {
    if (this.#hasStartFailed) return;
    this.#hasStartFailed = true;
    const message = `fuse: a worker cannot start, the other threads do its work: ${messageOf(cause)}`;
    this.#options.onStartFailure?.(new LazyError("UNAVAILABLE", message, { cause }));
  }

  #threadEnds(): void {
    this.#running--;
    if (this.#running === 0) this.#end.resolve();
  }

  #receive(message: FuseWorkerMessage): void {
    if (message.kind === "read") void this.#answerRead(message.read);
    else if (message.kind === "change") void this.#makeChange(message.change);
    else if (message.kind === "serving") this.#isHandedOver = true;
    else this.#checkRelease();
  }

  /** Never rejects, as `#answerRead`. */
  async #makeChange(change: Change): Promise<void> {
    let body: Uint8Array;
    try {
      body = await this.#change(change);
    } catch (error) {
      this.#changes.failedWrites++;
      const errno = isDiskFull(error) ? ERRNO.NOSPC : ERRNO.IO;
      writeReply(this.#descriptor, [encodeReply(change.unique, new Uint8Array(0), errno)]);
      this.#options.onWriteFailure?.(error, change);
      return;
    }
    writeReply(this.#descriptor, [encodeReply(change.unique, body)]);
  }

  async #change(change: Change): Promise<Uint8Array> {
    const device = this.#device;
    if (device === undefined) throw new LazyError("UNSUPPORTED", `${this.#options.content.name}: is read-only`);
    switch (change.kind) {
      case "write":
        await device.write(change.offset, change.data);
        this.#changes.writes++;
        this.#changes.writtenBytes += change.data.length;
        return writeOut.encode({ size: change.data.length });
      case "discard":
        await device.discard(change.offset, change.length);
        this.#changes.discards++;
        return new Uint8Array(0);
      case "flush":
        await device.flush();
        this.#changes.flushes++;
        return new Uint8Array(0);
    }
  }

  #checkRelease(): void {
    if (this.#awaitsRelease && this.openings() === 0) this.#release.resolve();
  }

  /** Never rejects: what fails is reported to the reader and to `onReadFailure`. */
  async #answerRead({ unique, file, offset, length }: ReadRequest): Promise<void> {
    if (file !== CONTENT_FILE) {
      this.#answerStats(unique, offset, length);
      return;
    }
    let bytes: Uint8Array;
    try {
      bytes = await this.#options.content.read(offset, length);
    } catch (error) {
      this.#main.failed++;
      writeReply(this.#descriptor, [encodeReply(unique, new Uint8Array(0), ERRNO.IO)]);
      this.#options.onReadFailure(error, offset, length);
      return;
    }
    this.#main.reads++;
    this.#main.bytes += bytes.length;
    writeReply(this.#descriptor, [encodeReplyHeader(unique, bytes.length), bytes]);
  }

  #answerStats(unique: number, offset: number, length: number): void {
    if (offset === 0) this.#statsText = Buffer.from(this.#options.stats());
    const bytes = this.#statsText.subarray(offset, offset + length);
    writeReply(this.#descriptor, [encodeReply(unique, bytes)]);
  }
}
