import { Worker } from "node:worker_threads";
import { compressInline, type BlockAlgorithm, type CompressBlocks, type CompressedBatch } from "../compression/block-codec.ts";
import { LazyError, messageOf, type ErrorCode } from "../errors.ts";

/** Sent to a worker; the buffer is transferred. */
export interface CompressionRequest {
  readonly id: number;
  readonly algorithm: BlockAlgorithm;
  readonly blockSize: number;
  readonly input: ArrayBuffer;
  /** Bytes of `input` that are to be compressed. */
  readonly inputBytes: number;
}

/** Sent back; the buffers are transferred, `input` for the next request. */
export interface CompressionReply {
  readonly id: number;
  readonly input: ArrayBuffer;
  readonly result: CompressedBatch | { readonly code: ErrorCode; readonly message: string };
}

export interface CompressionPoolOptions {
  /** Threads; 0 compresses on the calling thread. */
  readonly workers: number;
  /** The module that a thread runs. */
  readonly script?: URL;
}

interface Job {
  readonly algorithm: BlockAlgorithm;
  readonly input: Uint8Array;
  readonly blockSize: number;
  readonly resolve: (batch: CompressedBatch) => void;
  readonly reject: (error: Error) => void;
}

interface Seat {
  worker: Worker | undefined;
  /** Jobs that the worker has, by id. */
  readonly jobs: Map<number, Job>;
}

/** Jobs given to one worker at a time: one to do and one waiting, so that it never idles for a message. */
const JOBS_PER_WORKER = 2;
/** Input buffers that are kept for the next job. */
const MAX_FREE_BUFFERS = 16;

/** Beside this file, compiled or not. */
const SCRIPT = new URL(import.meta.url.endsWith(".ts") ? "./compression-worker.ts" : "./compression-worker.js", import.meta.url);

/**
 * Compresses batches of blocks on threads. Threads start with the first batch and keep the process alive until `close`.
 * A thread that dies rejects its batches with `UNAVAILABLE` and is replaced when there is more to do.
 */
export class CompressionPool {
  readonly #seats: Seat[];
  readonly #script: URL;
  readonly #waiting: Job[] = [];
  readonly #freeBuffers: ArrayBuffer[] = [];
  #nextId = 0;
  #closed = false;

  constructor(options: CompressionPoolOptions) {
    const { workers } = options;
    if (!Number.isInteger(workers) || workers < 0)
      throw new LazyError("USAGE", `compression pool: ${workers} workers, expected a whole number`);
    this.#seats = Array.from({ length: workers }, () => ({ worker: undefined, jobs: new Map() }));
    this.#script = options.script ?? SCRIPT;
  }

  /** Copies the input when a thread has room for it, so that memory is bounded by the threads; callers bound how many they start. */
  readonly compress: CompressBlocks = async (algorithm, input, blockSize) => {
    if (this.#closed) throw new LazyError("USAGE", "compression pool: used after close");
    if (this.#seats.length === 0) return await compressInline(algorithm, input, blockSize);
    return await new Promise<CompressedBatch>((resolve, reject) => {
      this.#waiting.push({ algorithm, input, blockSize, resolve, reject });
      this.#dispatch();
    });
  };

  /** Ends the threads; batches that are not done are rejected. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const ended = this.#seats.map(async (seat) => {
      const { worker } = seat;
      seat.worker = undefined;
      this.#fail(seat, new LazyError("UNAVAILABLE", "compression pool: closed before the batch was done"));
      await worker?.terminate();
    });
    for (const job of this.#waiting.splice(0))
      job.reject(new LazyError("UNAVAILABLE", "compression pool: closed before the batch was done"));
    await Promise.all(ended);
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const seat = this.#seats.reduce((least, other) => (other.jobs.size < least.jobs.size ? other : least));
      if (seat.jobs.size >= JOBS_PER_WORKER) return;
      this.#send(seat, this.#waiting.shift()!);
    }
  }

  #send(seat: Seat, job: Job): void {
    const id = this.#nextId++;
    const input = this.#buffer(job.input.length);
    new Uint8Array(input).set(job.input);
    const request: CompressionRequest = { id, algorithm: job.algorithm, blockSize: job.blockSize, input, inputBytes: job.input.length };
    seat.jobs.set(id, job);
    seat.worker ??= this.#start(seat);
    seat.worker.postMessage(request, [input]);
  }

  #buffer(bytes: number): ArrayBuffer {
    const free = this.#freeBuffers.pop();
    return free && free.byteLength >= bytes ? free : new ArrayBuffer(bytes);
  }

  #start(seat: Seat): Worker {
    const worker = new Worker(this.#script, { execArgv: [] }); // options that started this process need not fit a thread
    let cause: unknown;
    worker.on("message", (reply: CompressionReply) => this.#settle(seat, reply));
    worker.on("error", (error) => (cause = error));
    worker.on("exit", (status) => {
      if (seat.worker !== worker) return;
      seat.worker = undefined;
      const why = cause === undefined ? `exit status ${status}` : messageOf(cause);
      this.#fail(seat, new LazyError("UNAVAILABLE", `compression pool: a worker ended (${why})`, { cause }));
      this.#dispatch();
    });
    return worker;
  }

  #settle(seat: Seat, reply: CompressionReply): void {
    const job = seat.jobs.get(reply.id);
    if (!job) return;
    seat.jobs.delete(reply.id);
    if (this.#freeBuffers.length < MAX_FREE_BUFFERS) this.#freeBuffers.push(reply.input);
    this.#dispatch();
    if ("code" in reply.result) job.reject(new LazyError(reply.result.code, reply.result.message));
    else job.resolve(reply.result);
  }

  #fail(seat: Seat, error: LazyError): void {
    const jobs = [...seat.jobs.values()];
    seat.jobs.clear();
    for (const job of jobs) job.reject(error);
  }
}
