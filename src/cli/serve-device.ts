import { once } from "node:events";
import { flushCompileCache } from "node:module";
import { LazyError, messageOf } from "../errors.ts";
import type { DeviceOrder, DeviceReply } from "../daemon/device-child.ts";
import { serveDevice } from "../daemon/device-process.ts";
import type { Environment } from "./environment.ts";
import { findDataExtents } from "./tools/data-extents.ts";

/**
 * The hidden command that the daemon starts: the process that serves one device until it is stopped. It has an entry of its own, as each
 * device has such a process, and most of the program's parts would only take memory there. A process that is to wait for a device gets a
 * directory that it can use meanwhile.
 */
export async function runServeDevice(args: readonly string[], environment: Environment): Promise<number> {
  const [directory, ...more] = args;
  if (more.length !== 0) throw new LazyError("USAGE", "serve-device: takes one argument at most");
  const standardError = (line: string): void => void environment.stderr.write(line);
  let isReady = false;
  try {
    const order = await orderOfParent(environment.signal, directory);
    // For whoever lists processes.
    process.title = `lazylayer serve-device ${order.directory}`;
    await serveDevice(order, { ...environment, standardError, findDataExtents }, async () => {
      isReady = true;
      await reply({ kind: "ready" });
      // It would otherwise be written when the process ends; others start meanwhile, with less to compile and far less memory.
      flushCompileCache();
      // Opening leaves much behind, and a device may have nothing to do for days.
      collectGarbage();
      // The daemon may end before, or without a word.
      if (process.connected) process.disconnect();
    });
    // Connections that were cut off may linger; everything worth waiting for has been waited for.
    process.exit();
  } catch (error) {
    const { code, message } = error instanceof LazyError ? error : { code: "UNAVAILABLE" as const, message: messageOf(error) };
    if (!isReady) await reply({ kind: "failed", code, message });
    process.exit(1);
  }
}

/** The daemon is this same program, and has checked what it sends. It may be long in coming; most of what it may ask for is loaded meanwhile. */
async function orderOfParent(signal: AbortSignal, directory: string | undefined): Promise<DeviceOrder> {
  if (!process.connected) throw new LazyError("USAGE", "serve-device: is started by lazylayer daemon, which says what to serve");
  const end = (): void => process.exit();
  process.once("disconnect", end);
  signal.addEventListener("abort", end);
  const ordered = once(process, "message") as Promise<[DeviceOrder]>;
  await import("../daemon/config/service-registries.ts");
  if (directory !== undefined) await rehearseUntil(ordered, directory);
  const [order] = await ordered;
  process.off("disconnect", end);
  signal.removeEventListener("abort", end);
  return order;
}

/** It fails where this machine has no room for it: only time is lost then, later. */
async function rehearseUntil(ordered: Promise<unknown>, directory: string): Promise<void> {
  const { rehearse } = await import("../daemon/rehearsal.ts");
  const rehearsal = new AbortController();
  const abort = (): void => rehearsal.abort();
  ordered.then(abort, abort);
  await rehearse(directory, rehearsal.signal).catch(() => {});
  // It may be long until there is a device.
  if (!rehearsal.signal.aborted) collectGarbage();
}

function collectGarbage(): void {
  globalThis.gc?.({ type: "major", execution: "sync", flavor: "last-resort" });
}

/** Resolves when the parent has the message, or is gone. */
async function reply(message: DeviceReply): Promise<void> {
  const sent = Promise.withResolvers<unknown>();
  if (process.connected) process.send?.(message, undefined, undefined, sent.resolve);
  else sent.resolve(undefined);
  await sent.promise;
}
