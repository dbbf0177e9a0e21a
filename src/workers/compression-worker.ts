import { parentPort } from "node:worker_threads";
import { compressBlocks } from "../compression/block-codec.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { CompressionReply, CompressionRequest } from "./compression-pool.ts";

/** One thread of a `CompressionPool`: a request in, a reply out, buffers handed over both ways. */
parentPort?.on("message", (request: CompressionRequest) => {
  const { id, input } = request;
  let reply: CompressionReply;
  const transferred = [input];
  try {
    const result = compressBlocks(request.algorithm, new Uint8Array(input, 0, request.inputBytes), request.blockSize);
    transferred.push(result.bytes.buffer, result.storedBytes.buffer);
    reply = { id, input, result };
  } catch (error) {
    const code = error instanceof LazyError ? error.code : "UNAVAILABLE";
    reply = { id, input, result: { code, message: messageOf(error) } };
  }
  parentPort?.postMessage(reply, transferred);
});
