import { parentPort, workerData, type Transferable } from "node:worker_threads";

/** A thread's end of the line to its `ThreadPool`. */
export interface ThreadPort<Reply> {
  /** What the pool was made with. */
  readonly data: unknown;
  /** Sends a message; what is in `transferred` is the pool's from now on. */
  post(reply: Reply, transferred?: readonly Transferable[]): void;
}

/** Handles what the pool sends, for as long as the thread runs. */
export function openThreadPort<Request, Reply>(receive: (request: Request) => void): ThreadPort<Reply> {
  const port = parentPort;
  if (port === null) throw new Error("this module runs as a thread only");
  port.on("message", receive);
  return { data: workerData, post: (reply, transferred = []) => port.postMessage(reply, transferred) };
}
