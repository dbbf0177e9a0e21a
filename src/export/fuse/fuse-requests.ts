import { LazyError } from "../../errors.ts";
import { writeReply } from "./fuse-connection.ts";
import { answerRequest, encodeReply, encodeReplyHeader, type Answer, type Change, type FuseFile, type ReadRequest } from "./fuse-files.ts";
import { ERRNO, inHeader, MAX_READ_BYTES, outHeader, READ_ONLY_BUFFER_BYTES, WRITABLE_BUFFER_BYTES } from "./protocol.ts";
import type { SyncReader } from "./sync-reader.ts";

/** What the threads that take requests share. */
export interface FuseConnection {
  readonly descriptor: number;
  readonly files: readonly FuseFile[];
  /** The file that a `SyncReader` reads. */
  readonly contentFile: number;
  /** One element: how often `contentFile` is open. */
  readonly openings: Int32Array;
}

/** What takes the server itself: a read to answer, a change to make, or that the content file is open no more. */
export type FuseWork =
  | { readonly kind: "read"; readonly read: ReadRequest }
  /** Data of a write is in memory of its own. */
  | { readonly kind: "change"; readonly change: Change }
  | { readonly kind: "released" };

/** Room for one request of the kernel. */
export function requestBuffer(files: readonly FuseFile[]): Buffer {
  return Buffer.alloc(files.some(({ writable }) => writable) ? WRITABLE_BUFFER_BYTES : READ_ONLY_BUFFER_BYTES);
}

/** Answers requests as far as that can be done at once, on one thread. */
export class FuseRequests {
  readonly #connection: FuseConnection;
  readonly #reader: SyncReader | undefined;
  readonly #counters: Float64Array;
  readonly #pass: (work: FuseWork) => void;
  readonly #content = Buffer.alloc(MAX_READ_BYTES);
  readonly #header = new Uint8Array(outHeader.size);

  /**
   * @param counters of reads and bytes that were answered here
   * @param pass takes what cannot be done at once
   */
  constructor(connection: FuseConnection, reader: SyncReader | undefined, counters: Float64Array, pass: (work: FuseWork) => void) {
    this.#connection = connection;
    this.#reader = reader;
    this.#counters = counters;
    this.#pass = pass;
  }

  /** The request's memory may be used again when this returns. */
  take(request: Uint8Array): void {
    const { descriptor, files, contentFile } = this.#connection;
    const answer = answerOrRefuse(files, request);
    switch (answer.kind) {
      case "none":
        return;
      case "change":
        this.#pass({ kind: "change", change: withOwnData(answer.change) });
        return;
      case "read":
        this.#read(answer.read);
        return;
      case "reply":
        writeReply(descriptor, [answer.bytes]);
        return;
      case "opened":
      case "released":
        if (answer.file === contentFile) this.#countOpening(answer.kind);
        writeReply(descriptor, [answer.bytes]);
    }
  }

  #read(read: ReadRequest): void {
    const { descriptor, contentFile } = this.#connection;
    const target = this.#content.subarray(0, read.length);
    if (read.file !== contentFile || this.#reader?.readCached(read.offset, target) !== true) {
      this.#pass({ kind: "read", read });
      return;
    }
    writeReply(descriptor, [encodeReplyHeader(read.unique, read.length, this.#header), target]);
    this.#counters[0] += 1;
    this.#counters[1] += read.length;
  }

  /** Counted where it happens, and before the kernel hears of it: messages of two threads may pass each other. */
  #countOpening(kind: "opened" | "released"): void {
    const { openings } = this.#connection;
    if (kind === "opened") Atomics.add(openings, 0, 1);
    else if (Atomics.sub(openings, 0, 1) === 1) this.#pass({ kind: "released" });
  }
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

function withOwnData(change: Change): Change {
  return change.kind === "write" ? { ...change, data: new Uint8Array(change.data) } : change;
}
