import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { linkSync, lstatSync, renameSync, rmSync } from "node:fs";
import { connect, type Server } from "node:net";
import { dirname, join } from "node:path";
import { LazyError, messageOf } from "../errors.ts";

/**
 * Listens on a unix socket that only its owner may use. The socket of a server that is gone is replaced; throws `UNAVAILABLE` when
 * another one listens there. The socket appears when it can be connected to, and is removed by whoever made it.
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  const fresh = join(dirname(path), `.${randomBytes(4).toString("hex")}`);
  const listening = once(server, "listening");
  // Binding happens inside of the call, and only the owner may connect from the first moment.
  const mask = process.umask(0o177);
  try {
    server.listen(fresh);
  } finally {
    process.umask(mask);
  }
  try {
    await listening;
    await claim(fresh, path);
  } catch (cause) {
    server.close();
    throw cause instanceof LazyError ? cause : new LazyError("UNAVAILABLE", `cannot listen on ${path}: ${messageOf(cause)}`, { cause });
  } finally {
    rmSync(fresh, { force: true });
  }
}

/** A link is made by one of those who try at once. */
async function claim(fresh: string, path: string): Promise<void> {
  for (;;) {
    try {
      linkSync(fresh, path);
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    await refuseLive(path);
    // Taken away first, then looked at again: another server may have put its own there meanwhile.
    const aside = `${fresh}.old`;
    if (!moved(path, aside)) continue;
    if (await isListening(aside)) {
      linkSync(aside, path);
      rmSync(aside);
      throw new LazyError("UNAVAILABLE", `${path}: another server listens there`);
    }
    rmSync(aside);
  }
}

async function refuseLive(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new LazyError("USAGE", `${path}: exists, and is no socket; name another path`);
  if (await isListening(path)) throw new LazyError("UNAVAILABLE", `${path}: another server listens there`);
}

function moved(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}

async function isListening(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED" || code === "ENOENT") return false;
    throw error;
  } finally {
    socket.destroy();
  }
}
