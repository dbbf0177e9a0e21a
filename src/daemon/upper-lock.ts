import { once } from "node:events";
import { stat } from "node:fs/promises";
import { createServer } from "node:net";
import { LazyError, messageOf } from "../errors.ts";

export interface UpperLock {
  close(): unknown;
}

/**
 * Keeps other processes from writing to a layer: two writers would spoil it. The lock is an address without a file, the same that
 * `lazylayer serve --upper` takes, and goes away with the process, however that ends. Throws `UNAVAILABLE` where another one has it.
 */
export async function lockUpper(path: string): Promise<UpperLock> {
  const server = createServer((socket) => socket.destroy());
  try {
    const { dev, ino } = await stat(path);
    server.listen(`\0lazylayer-upper-${dev}-${ino}`);
    await once(server, "listening");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === "ENOENT") throw new LazyError("NOT_FOUND", `upper.data: ${messageOf(cause)}`, { cause });
    if (code !== "EADDRINUSE") throw new LazyError("UNAVAILABLE", `upper.data: ${messageOf(cause)}`, { cause });
    throw new LazyError("UNAVAILABLE", `upper.data: another process writes to ${path}; two would spoil it`, { cause });
  }
  server.unref();
  return server;
}
