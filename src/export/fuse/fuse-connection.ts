import { read, readSync, writevSync } from "node:fs";

/** Reads the kernel's next request into `buffer`; its length, or undefined once the file system is unmounted. Blocks. */
export function readRequest(descriptor: number, buffer: Uint8Array): number | undefined {
  for (;;) {
    try {
      return readSync(descriptor, buffer);
    } catch (error) {
      if (isEnd(error)) return undefined;
    }
  }
}

/** The same without blocking this thread; one of those that Node reads files with waits instead. */
export async function readRequestLater(descriptor: number, buffer: Uint8Array): Promise<number | undefined> {
  for (;;) {
    try {
      return await new Promise<number>((resolve, reject) =>
        read(descriptor, buffer, 0, buffer.length, null, (error, bytes) => (error ? reject(error) : resolve(bytes))),
      );
    } catch (error) {
      if (isEnd(error)) return undefined;
    }
  }
}

/** Sends a reply in one write. Nobody may be waiting for it any more; that is no error. */
export function writeReply(descriptor: number, parts: readonly Uint8Array[]): void {
  try {
    writevSync(descriptor, [...parts]);
  } catch (error) {
    const code = codeOf(error);
    if (code !== "ENOENT" && code !== "ENODEV") throw error;
  }
}

/** Whether there will be no requests any more. Throws what is no way to say so, nor that it should be asked again. */
function isEnd(error: unknown): boolean {
  const code = codeOf(error);
  if (code === "ENODEV") return true;
  // The request was taken back before it could be read, or a signal came.
  if (code === "ENOENT" || code === "EINTR" || code === "EAGAIN") return false;
  throw error;
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
