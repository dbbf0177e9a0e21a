import { Worker, type Transferable } from "node:worker_threads";
import { LazyError, messageOf } from "../errors.ts";

export interface ThreadPoolOptions<Reply> {
  /** At least 1. */
  readonly threads: number;
  /** The module that each thread runs. */
  readonly script: URL;
  /** What each thread is started with; shared memory stays shared. */
  readonly data: unknown;
  /** A message from a thread, told by its number from 0. */
  readonly receive: (thread: number, reply: Reply) => void;
  /** A thread has died with all that it was given. The next message to it starts another. */
  readonly lost: (thread: number, error: LazyError) => void;
}

/** Threads that are sent messages. Each starts with its first message, and keeps the process alive only while it is held. */
export class ThreadPool<Request, Reply> {
  readonly size: number;
  readonly #options: ThreadPoolOptions<Reply>;
  readonly #workers: (Worker | undefined)[];
  readonly #held: boolean[];
  #closed = false;

  constructor(options: ThreadPoolOptions<Reply>) {
    const { threads } = options;
    if (!Number.isInteger(threads) || threads < 1) throw new LazyError("USAGE", `thread pool: ${threads} threads, expected at least one`);
    this.size = threads;
    this.#options = options;
    this.#workers = Array.from({ length: threads });
    this.#held = Array.from({ length: threads }, () => false);
  }

  /** Sends a message; what is in `transferred` is the thread's from now on. Nothing is sent once the pool is closed. */
  post(thread: number, request: Request, transferred: readonly Transferable[] = []): void {
    if (this.#closed) return;
    const worker = (this.#workers[thread] ??= this.#start(thread));
    worker.postMessage(request, transferred);
  }

  /** Whether the process waits for the thread. */
  hold(thread: number, held: boolean): void {
    this.#held[thread] = held;
    if (held) this.#workers[thread]?.ref();
    else this.#workers[thread]?.unref();
  }

  /** Ends the threads; what they were at is lost. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const workers = this.#workers.splice(0);
    await Promise.all(workers.map(async (worker) => await worker?.terminate()));
  }

  #start(thread: number): Worker {
    const { script, data, receive, lost } = this.#options;
    const worker = new Worker(script, { workerData: data, execArgv: [] }); // options that started this process need not fit a thread
    if (!this.#held[thread]) worker.unref();
    let cause: unknown;
    worker.on("message", (reply: Reply) => receive(thread, reply));
    worker.on("error", (error) => (cause = error));
    worker.on("exit", (status) => {
      if (this.#workers[thread] !== worker) return;
      this.#workers[thread] = undefined;
      const why = cause === undefined ? `exit status ${status}` : messageOf(cause);
      lost(thread, new LazyError("UNAVAILABLE", `a thread of the conversion ended (${why}); try again`, { cause }));
    });
    return worker;
  }
}
