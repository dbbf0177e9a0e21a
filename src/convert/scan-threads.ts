import { compressBlocks, type CompressBlocks, type CompressedBatch } from "../compression/block-codec.ts";
import { LazyError } from "../errors.ts";
import { ThreadPool } from "../workers/thread-pool.ts";
import { EntryLog } from "./entry-log.ts";
import type { LayerScan, ScanOptions } from "./layer-scan.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";
import { BATCH_BUFFER_BYTES, PAYLOAD_ALGORITHM, type ScanReply, type ScanRequest } from "./scan-messages.ts";

/** Puts a batch of compressed payload, which held that many bytes, into the blob. The batch is used again afterwards. */
export type PutBatch = (batch: CompressedBatch, payloadBytes: number) => Promise<void>;

/** Stored bytes go to a thread in buffers of this size ... */
const STORED_BUFFER_BYTES = 1 << 20;
/** ... of which a scan has so many underway. */
const STORED_BUFFERS = 3;
/** Batches that a thread without a scan is given at a time: one to do, and one that waits so that it never idles for a message. */
const BATCHES_PER_IDLE_THREAD = 2;
/** Less than this is compressed faster than handed over. */
const INLINE_BYTES = 128 << 10;

/** Beside this file, compiled or not. */
const SCRIPT = new URL(import.meta.url.endsWith(".ts") ? "./layer-scan-worker.ts" : "./layer-scan-worker.js", import.meta.url);

/** The threads that conversions share, as many as there are cores. */
export interface ScanThreadsOptions {
  readonly threads: number;
  readonly script?: URL;
}

interface Load {
  scans: number;
  batches: number;
}

interface Batch {
  readonly thread: number;
  readonly resolve: (batch: CompressedBatch) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Scans layers on threads: each layer on one, several on one thread when there are more layers than threads. Threads without a layer
 * compress payload for the others, so that one large layer uses all cores. What comes out does not depend on who does what.
 */
export class ScanThreads {
  readonly #pool: ThreadPool<ScanRequest, ScanReply>;
  readonly #loads: Load[];
  readonly #scans = new Map<number, Scan>();
  readonly #batches = new Map<number, Batch>();
  /** How many batches scans may hand to idle threads: in shared memory, as scans take from it by themselves. */
  readonly #offers = new Int32Array(new SharedArrayBuffer(4));
  /** Offers that were made and whose batch has not come. */
  #offered = 0;
  readonly #free: FreeBuffers = { stored: [], batches: [] };
  #nextId = 0;
  #closed = false;

  constructor({ threads, script = SCRIPT }: ScanThreadsOptions) {
    this.#loads = Array.from({ length: threads }, () => ({ scans: 0, batches: 0 }));
    this.#pool = new ThreadPool({
      threads,
      script,
      data: this.#offers.buffer,
      receive: (_, reply) => this.#receive(reply),
      lost: (thread, error) => this.#lost(thread, error),
    });
  }

  /**
   * The data pass over a layer as it is stored. Payload comes compressed and in order through `put`, if that is given. Throws what the
   * layer's format, its transfer or `put` throws; the caller then ends the transfer, if it has not ended.
   */
  async scan(
    stored: AsyncIterable<Uint8Array>,
    name: string,
    put: PutBatch | undefined,
    { indexed = false }: Partial<Pick<ScanOptions, "indexed">> = {},
  ): Promise<LayerScan> {
    this.#checkOpen();
    const thread = this.#leastLoaded();
    const id = this.#nextId++;
    const load = this.#loads[thread];
    load.scans++;
    this.#pool.hold(thread, true);
    this.#adjustOffers();
    const post = (request: ScanRequest, transferred: ArrayBuffer[]): void => this.#pool.post(thread, request, transferred);
    const scan = new Scan(id, thread, this.#free, put ?? NO_PAYLOAD, post);
    this.#scans.set(id, scan);
    try {
      post({ kind: "scan", id, name, options: { payload: put !== undefined, indexed } }, []);
      const [scanned] = await Promise.all([scan.done, scan.feed(stored)]);
      return scanned;
    } catch (error) {
      scan.drop(error);
      throw error;
    } finally {
      this.#scans.delete(id);
      load.scans--;
      this.#letGo(thread);
      this.#adjustOffers();
    }
  }

  /** Compresses blocks of anything. */
  readonly compress: CompressBlocks = async (algorithm, input, blockSize, spare) => {
    this.#checkOpen();
    if (input.length <= INLINE_BYTES) return compressBlocks(algorithm, input, blockSize, spare);
    const buffer = this.#batchBuffer(input.length);
    new Uint8Array(buffer).set(input);
    return await this.#compress({ algorithm, blockSize, buffer, bytes: input.length, spare: spare ?? this.#batchBuffer(0) });
  };

  /** Ends the threads; what is not done fails. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const error = new LazyError("UNAVAILABLE", "the conversion was ended before it was done");
    for (let thread = 0; thread < this.#loads.length; thread++) this.#lost(thread, error);
    await this.#pool.close();
  }

  async #compress(work: Omit<Extract<ScanRequest, { kind: "compress" }>, "kind" | "id">): Promise<CompressedBatch> {
    const thread = this.#leastLoaded();
    const id = this.#nextId++;
    this.#loads[thread].batches++;
    this.#pool.hold(thread, true);
    try {
      return await new Promise<CompressedBatch>((resolve, reject) => {
        this.#batches.set(id, { thread, resolve, reject });
        this.#pool.post(thread, { kind: "compress", id, ...work }, work.spare ? [work.buffer, work.spare] : [work.buffer]);
      });
    } finally {
      this.#batches.delete(id);
      this.#loads[thread].batches--;
      this.#letGo(thread);
      this.#adjustOffers();
    }
  }

  #batchBuffer(leastBytes: number): ArrayBuffer {
    if (leastBytes > BATCH_BUFFER_BYTES) return new ArrayBuffer(leastBytes);
    return this.#free.batches.pop() ?? new ArrayBuffer(BATCH_BUFFER_BYTES);
  }

  #receive(reply: ScanReply): void {
    if (reply.kind === "compressed") this.#compressed(reply);
    else if (reply.kind === "payload") this.#payload(reply);
    else this.#scans.get(reply.id)?.receive(reply);
  }

  #compressed({ id, buffer, result }: Extract<ScanReply, { kind: "compressed" }>): void {
    const batch = this.#batches.get(id);
    recycleBatch(this.#free, buffer);
    if ("code" in result) batch?.reject(new LazyError(result.code, result.message));
    else batch?.resolve(result);
  }

  #payload({ id, buffer, bytes }: Extract<ScanReply, { kind: "payload" }>): void {
    this.#offered--;
    const scan = this.#scans.get(id);
    if (!scan) return;
    const spare = this.#free.batches.pop();
    scan.putInOrder(this.#compress({ algorithm: PAYLOAD_ALGORITHM, blockSize: PAYLOAD_BLOCK_BYTES, buffer, bytes, spare }), bytes);
    this.#adjustOffers();
  }

  #leastLoaded(): number {
    const weight = ({ scans, batches }: Load): number => scans * BATCHES_PER_IDLE_THREAD + batches;
    let least = 0;
    for (const [thread, load] of this.#loads.entries()) if (weight(load) < weight(this.#loads[least])) least = thread;
    return least;
  }

  /** Offers what idle threads can take, and takes back what they cannot any more. */
  #adjustOffers(): void {
    let wanted = 0;
    for (const { scans, batches } of this.#loads) if (scans === 0) wanted += Math.max(0, BATCHES_PER_IDLE_THREAD - batches);
    for (; this.#offered < wanted; this.#offered++) Atomics.add(this.#offers, 0, 1);
    while (this.#offered > wanted) {
      const open = Atomics.load(this.#offers, 0);
      if (open <= 0) return;
      if (Atomics.compareExchange(this.#offers, 0, open, open - 1) === open) this.#offered--;
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw new LazyError("USAGE", "threads of the conversion: used after close");
  }

  #letGo(thread: number): void {
    const { scans, batches } = this.#loads[thread];
    if (scans + batches === 0) this.#pool.hold(thread, false);
  }

  #lost(thread: number, error: LazyError): void {
    for (const batch of this.#batches.values()) if (batch.thread === thread) batch.reject(error);
    for (const scan of this.#scans.values()) if (scan.thread === thread) scan.fail(error);
  }
}

const NO_PAYLOAD: PutBatch = async () => {};

/** Buffers that nobody has, to be used again: fresh ones cost more than what is done with them. */
interface FreeBuffers {
  readonly stored: ArrayBuffer[];
  readonly batches: ArrayBuffer[];
}

const MAX_FREE_BATCHES = 16;

function recycleBatch({ batches }: FreeBuffers, buffer: ArrayBuffer): void {
  if (buffer.byteLength === BATCH_BUFFER_BYTES && batches.length < MAX_FREE_BATCHES) batches.push(buffer);
}

/** One layer's way through its thread, seen from here. */
class Scan {
  readonly thread: number;
  readonly done: Promise<LayerScan>;
  readonly #id: number;
  readonly #put: PutBatch;
  readonly #post: (request: ScanRequest, transferred: ArrayBuffer[]) => void;
  readonly #resolve: (scan: LayerScan) => void;
  readonly #reject: (error: unknown) => void;
  readonly #free: FreeBuffers;
  #storedUnderway = 0;
  #hasFailed = false;
  #freed = (): void => {};
  /** The batches that came so far are in the blob. */
  #allPut: Promise<void> = Promise.resolve();

  constructor(
    id: number,
    thread: number,
    free: FreeBuffers,
    put: PutBatch,
    post: (request: ScanRequest, transferred: ArrayBuffer[]) => void,
  ) {
    this.#id = id;
    this.#free = free;
    this.thread = thread;
    this.#put = put;
    this.#post = post;
    const { promise, resolve, reject } = Promise.withResolvers<LayerScan>();
    this.done = promise;
    this.done.catch(() => {}); // whoever scans awaits it, perhaps after it failed
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Hands the layer's bytes to the thread, as fast as it takes them. */
  async feed(stored: AsyncIterable<Uint8Array>): Promise<void> {
    let buffer: Uint8Array<ArrayBuffer> | undefined;
    let filled = 0;
    for await (const chunk of stored) {
      for (let at = 0; at < chunk.length;) {
        buffer ??= new Uint8Array(await this.#freeBuffer());
        if (this.#hasFailed) return;
        const taken = Math.min(chunk.length - at, buffer.length - filled);
        buffer.set(chunk.subarray(at, at + taken), filled);
        at += taken;
        filled += taken;
        if (filled < buffer.length) continue;
        this.#postStored(buffer, filled);
        [buffer, filled] = [undefined, 0];
      }
    }
    if (this.#hasFailed) return;
    if (buffer && filled > 0) this.#postStored(buffer, filled);
    this.#post({ kind: "end", id: this.#id }, []);
  }

  receive(reply: Exclude<ScanReply, { kind: "payload" | "compressed" }>): void {
    switch (reply.kind) {
      case "taken":
        this.#free.stored.push(reply.buffer);
        this.#storedUnderway--;
        this.#freed();
        break;
      case "batch":
        this.putInOrder(Promise.resolve(reply.batch), reply.payloadBytes);
        break;
      case "scanned": {
        const { payloadBlocks, diffId, index } = reply;
        const scan = { entries: EntryLog.from(reply.entries), payloadBlocks, diffId, index };
        this.#allPut.then(
          () => this.#resolve(scan),
          () => {}, // has been reported
        );
        break;
      }
      case "scan failed":
        this.fail(new LazyError(reply.error.code, reply.error.message));
        break;
    }
  }

  /** Puts a batch into the blob after those that came before. */
  putInOrder(compressed: Promise<CompressedBatch>, payloadBytes: number): void {
    const before = this.#allPut;
    this.#allPut = (async () => {
      const [batch] = await Promise.all([compressed, before]);
      await this.#put(batch, payloadBytes);
      recycleBatch(this.#free, batch.bytes.buffer);
      const spare = this.#free.batches.pop();
      if (!this.#hasFailed) this.#post({ kind: "put", id: this.#id, spare }, spare ? [spare] : []);
    })();
    this.#allPut.catch((error: unknown) => this.fail(error));
  }

  fail(error: unknown): void {
    this.#hasFailed = true;
    this.#freed();
    this.#reject(error);
  }

  /** Ends the scan in its thread as well. */
  drop(error: unknown): void {
    this.fail(error);
    this.#post({ kind: "drop", id: this.#id }, []);
  }

  #postStored(stored: Uint8Array<ArrayBuffer>, bytes: number): void {
    this.#post({ kind: "stored", id: this.#id, buffer: stored.buffer, bytes }, [stored.buffer]);
  }

  async #freeBuffer(): Promise<ArrayBuffer> {
    while (this.#storedUnderway >= STORED_BUFFERS && !this.#hasFailed) await new Promise<void>((resolve) => (this.#freed = resolve));
    this.#storedUnderway++;
    return this.#free.stored.pop() ?? new ArrayBuffer(STORED_BUFFER_BYTES);
  }
}
