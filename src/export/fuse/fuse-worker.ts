import { flushCompileCache } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { LazyError } from "../../errors.ts";
import { PROGRAM_VERSION } from "../../native/program-version.ts";
import { readRequest } from "./fuse-connection.ts";
import { FuseRequests, requestBuffer, type FuseConnection, type FuseWork } from "./fuse-requests.ts";
import { loadSyncReader, type SyncReaderModule } from "./sync-reader.ts";

/** What a worker is started with. */
export interface FuseWorkerData {
  /** Of the program that starts it. What lies on the disk may be another's by then, which does not know this data. */
  readonly version: string;
  readonly connection: FuseConnection;
  readonly reader: SyncReaderModule | undefined;
  /** Reads and bytes that this worker answered. */
  readonly counters: Float64Array;
}

/** What a worker tells the main thread: that it takes requests now, or what takes the main thread. */
export type FuseWorkerMessage = FuseWork | { readonly kind: "serving" };

function post(message: FuseWorkerMessage): void {
  const moved = message.kind === "change" && message.change.kind === "write" ? [message.change.data.buffer as ArrayBuffer] : [];
  parentPort?.postMessage(message, moved);
}

// The main thread made this data with the type it is read with here.
const { version, connection, reader, counters } = workerData as FuseWorkerData;
if (version !== PROGRAM_VERSION) {
  throw new LazyError("UNAVAILABLE", `the program was replaced while it ran: version ${PROGRAM_VERSION} is on the disk, ${version} runs`);
}
const requests = new FuseRequests(connection, reader && (await loadSyncReader(reader)), counters, post);
const buffer = requestBuffer(connection.files);
// Nothing else would do it on this thread, which waits in the kernel from here on.
flushCompileCache();
globalThis.gc?.({ type: "major", execution: "sync", flavor: "last-resort" });
post({ kind: "serving" });
for (;;) {
  const length = readRequest(connection.descriptor, buffer);
  if (length === undefined) break; // unmounted
  requests.take(buffer.subarray(0, length));
}
