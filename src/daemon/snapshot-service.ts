import { createServer, type IncomingMessage, type Server } from "node:http";
import { resolve } from "node:path";
import { LazyError, messageOf } from "../errors.ts";
import type { Devices } from "./devices.ts";
import type { Log } from "./log/log.ts";

interface Answer {
  readonly status: number;
  readonly message: string;
}

/**
 * The API that existing clients of overlaybd's service know: `/snapshot?dev_id=ID&config=PATH`, with any method, and answers in its
 * words. Whoever reaches the port may use it. A relative path begins at the daemon's working directory, as it does there, and not at
 * that of the process which serves the device.
 */
export function createSnapshotService(devices: Devices, log: Log): Server {
  return createServer((request, response) => {
    void answer(devices, request, log).then(({ status, message }) => {
      const text = JSON.stringify({ success: status === 200, message }, undefined, 4);
      response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
      response.end(text);
    });
  });
}

/** Never rejects. */
async function answer(devices: Devices, request: IncomingMessage, log: Log): Promise<Answer> {
  request.resume();
  const url = URL.parse(request.url ?? "/", "http://localhost");
  if (url?.pathname !== "/snapshot") return { status: 404, message: "Not found" };
  const [id, config] = [url.searchParams.get("dev_id") ?? "", url.searchParams.get("config") ?? ""];
  if (id === "" || config === "") return { status: 400, message: "Missing dev_id or config in snapshot request" };
  try {
    await devices.get(id).snapshot(resolve(config));
    return { status: 200, message: "Snapshot created successfully" };
  } catch (error) {
    log("error", `snapshot of ${id} with ${config}: ${messageOf(error)}`);
    if (error instanceof LazyError && error.code === "NOT_FOUND" && !devices.list().some(({ spec }) => spec.id === id)) {
      return { status: 404, message: "Image file not found" };
    }
    // With the backtick, as clients may compare it.
    return { status: 500, message: "Failed to create snapshot`" };
  }
}
