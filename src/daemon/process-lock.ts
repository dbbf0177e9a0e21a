import { once } from "node:events";
import { stat } from "node:fs/promises";
import { createServer } from "node:net";

/** Goes away with its process, however that ends. */
export interface ProcessLock {
  close(): unknown;
}

/**
 * Locks a file or a directory against other processes of this program that lock it for the same purpose; undefined when one of them has
 * it. The lock is an address without a file, so nothing is left of it. Rejects when there is nothing at the path.
 */
export async function lockPath(purpose: "upper" | "download", path: string): Promise<ProcessLock | undefined> {
  const { dev, ino } = await stat(path);
  const server = createServer((socket) => socket.destroy()).listen(`\0lazylayer-${purpose}-${dev}-${ino}`);
  try {
    await once(server, "listening");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EADDRINUSE") return undefined;
    throw error;
  }
  server.unref();
  return server;
}
