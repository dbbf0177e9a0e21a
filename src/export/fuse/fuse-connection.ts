import { readSync, writevSync } from "node:fs";

/** Reads the kernel's next request into `buffer`; its length, or undefined once the file system is unmounted. Blocks. */
export function readRequest(descriptor: number, buffer: Uint8Array): number | undefined {
  for (;;) {
    try {
      return readSync(descriptor, buffer);
    } catch (error) {
      const code = codeOf(error);
      if (code === "ENODEV") return undefined;
      // The request was taken back before it could be read, or a signal came.
      if (code !== "ENOENT" && code !== "EINTR" && code !== "EAGAIN") throw error;
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

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
