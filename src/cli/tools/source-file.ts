import { spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { FileSource } from "../../bytes/file.ts";
import { LazyError } from "../../errors.ts";
import { openFailure } from "./tool.ts";

const READ_BYTES = 1 << 20;

/** Opens a file to read; throws what the tools say of one that cannot be opened. */
export async function openSource(path: string): Promise<FileSource> {
  try {
    return await FileSource.open(path);
  } catch (error) {
    throw openFailure(path, error);
  }
}

/** Opens a file or a FIFO to be read front to back. */
export async function openStream(path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
  if ((await stat(path).catch(() => undefined))?.isFIFO() === true) return readFifo(path, signal);
  const stream = createReadStream(path, { highWaterMark: READ_BYTES, signal });
  await new Promise<void>((resolve, reject) => {
    stream.once("open", () => resolve());
    stream.once("error", (error) => reject(openFailure(path, error) as Error));
  });
  return stream;
}

/** Another process waits for the FIFO: a read that is underway in this one would keep it from ending. */
async function* readFifo(path: string, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
  const cat = spawn("cat", ["--", path], { stdio: ["ignore", "pipe", "inherit"] });
  const stop = (): void => void cat.kill();
  const ended = new Promise<number | null>((done, fail) => {
    cat.once("error", fail);
    cat.once("close", done);
  });
  ended.catch(() => {}); // heard of below
  signal.addEventListener("abort", stop);
  try {
    for await (const chunk of cat.stdout as AsyncIterable<Uint8Array>) yield chunk;
    const status = await ended;
    signal.throwIfAborted();
    if (status !== 0) throw new LazyError("UNAVAILABLE", `${path}: cannot be read to its end`);
  } finally {
    signal.removeEventListener("abort", stop);
    stop();
  }
}
