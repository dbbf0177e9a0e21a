import { createReadStream } from "node:fs";
import { FileSource } from "../../bytes/file.ts";
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
  const stream = createReadStream(path, { highWaterMark: READ_BYTES, signal });
  await new Promise<void>((resolve, reject) => {
    stream.once("open", () => resolve());
    stream.once("error", (error) => reject(openFailure(path, error) as Error));
  });
  return stream;
}
