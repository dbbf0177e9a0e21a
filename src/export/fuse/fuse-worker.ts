import { flushCompileCache } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { readRequest, writeReply } from "./fuse-connection.ts";
import { LazyError } from "../../errors.ts";
import { answerRequest, encodeReply, encodeReplyHeader, type Answer, type Change, type FuseFile, type ReadRequest } from "./fuse-files.ts";
import { ERRNO, inHeader, MAX_READ_BYTES, outHeader, READ_ONLY_BUFFER_BYTES, WRITABLE_BUFFER_BYTES } from "./protocol.ts";
import { loadSyncReader, type SyncReader, type SyncReaderModule } from "./sync-reader.ts";

/** What a worker is started with. */
export interface FuseWorkerData {
  readonly descriptor: number;
  readonly files: readonly FuseFile[];
  /** The file that `reader` reads; the others are left to the main thread. */
  readonly contentFile: number;
  readonly reader: SyncReaderModule | undefined;
  /** One element: 0 while the file system is not mounted, then 1; 2 when it will not be. */
  readonly gate: Int32Array;
  /** One element, shared by all workers: how often `contentFile` is open. */
  readonly openings: Int32Array;
  /** Reads and bytes that this worker answered. */
  readonly counters: Float64Array;
}

/** What a worker tells the main thread: a read to answer, a change to make, that the content file is open no more, or that there is much to do. */
export type FuseWorkerMessage =
  | { readonly kind: "read"; readonly read: ReadRequest }
  | { readonly kind: "change"; readonly change: Change }
  | { readonly kind: "released" }
  | { readonly kind: "busy" };

/** Reads that a worker answers before it calls for others: more than it takes to mount a file system. */
const BUSY_READS = 1024;

function post(message: FuseWorkerMessage, moved: ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, moved);
}

/** The buffer takes the next request while the main thread writes: the data goes there in memory of its own. */
function postChange(change: Change): void {
  if (change.kind !== "write") {
    post({ kind: "change", change });
    return;
  }
  const data = new Uint8Array(change.data);
  post({ kind: "change", change: { ...change, data } }, [data.buffer]);
}

/** A request that cannot be understood is refused; the others go on. */
function answerOrRefuse(files: readonly FuseFile[], request: Uint8Array): Answer {
  try {
    return answerRequest(files, request);
  } catch (error) {
    if (!(error instanceof LazyError) || request.length < inHeader.size) throw error;
    return { kind: "reply", bytes: encodeReply(inHeader.decode(request).unique, new Uint8Array(0), ERRNO.INVAL) };
  }
}

/** Counted where it happens, and before the kernel hears of it: messages of two workers may pass each other. */
function countOpening(openings: Int32Array, kind: "opened" | "released"): void {
  if (kind === "opened") Atomics.add(openings, 0, 1);
  else if (Atomics.sub(openings, 0, 1) === 1) post({ kind: "released" });
}

/** Answers requests until the file system is unmounted. Blocks in the kernel: nothing else runs on this thread. */
function serve(data: FuseWorkerData, reader: SyncReader | undefined): void {
  const { descriptor, files, contentFile, counters } = data;
  const buffer = Buffer.alloc(files.some(({ writable }) => writable) ? WRITABLE_BUFFER_BYTES : READ_ONLY_BUFFER_BYTES);
  const content = Buffer.alloc(MAX_READ_BYTES);
  const header = new Uint8Array(outHeader.size);
  for (;;) {
    const length = readRequest(descriptor, buffer);
    if (length === undefined) return;
    const answer = answerOrRefuse(files, buffer.subarray(0, length));
    if (answer.kind === "none") continue;
    if (answer.kind === "change") {
      postChange(answer.change);
      continue;
    }
    if (answer.kind !== "read") {
      if (answer.kind !== "reply" && answer.file === contentFile) countOpening(data.openings, answer.kind);
      writeReply(descriptor, [answer.bytes]);
      continue;
    }
    const { read } = answer;
    const target = content.subarray(0, read.length);
    if (read.file !== contentFile || reader?.readCached(read.offset, target) !== true) {
      post({ kind: "read", read });
      continue;
    }
    writeReply(descriptor, [encodeReplyHeader(read.unique, read.length, header), target]);
    counters[0] += 1;
    counters[1] += read.length;
    if (counters[0] === BUSY_READS) post({ kind: "busy" });
  }
}

// The main thread made this data with the type it is read with here.
const data = workerData as FuseWorkerData;
const reader = data.reader === undefined ? undefined : await loadSyncReader(data.reader);
// Nothing else would do it on this thread, which waits in the kernel from here on.
flushCompileCache();
globalThis.gc?.({ type: "major", execution: "sync", flavor: "last-resort" });
Atomics.wait(data.gate, 0, 0);
if (Atomics.load(data.gate, 0) === 1) serve(data, reader);
