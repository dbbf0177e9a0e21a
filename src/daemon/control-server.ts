import { createServer, type Server, type Socket } from "node:net";
import { LazyError, messageOf } from "../errors.ts";
import { parseJsonObject, requireString } from "../oci/json.ts";
import type { ControlReply } from "./control-client.ts";
import type { DeviceStats } from "./device-stats.ts";
import { listenOnSocket } from "../export/unix-listener.ts";

const MAX_LINE_BYTES = 64 * 1024;
const ANSWER_TIMEOUT_MS = 1_000;

/** What a device process does when it is told to. */
export interface ControlledDevice {
  stats(): DeviceStats;
  stop(mode: "plain" | "lazy"): Promise<void>;
  snapshot(configPath: string): Promise<void>;
}

/**
 * Lets the daemon, and nobody else, tell a device process what to do: a connection carries one line of JSON, `ControlCall`, and one back,
 * `ControlReply`. No HTTP and no schemas: what they need would take more memory than the rest of an idle process.
 */
export class ControlServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(device: ControlledDevice) {
    this.#server = createServer((socket) => this.#receive(socket, device));
  }

  static async listen(path: string, device: ControlledDevice): Promise<ControlServer> {
    const control = new ControlServer(device);
    await listenOnSocket(control.#server, path);
    return control;
  }

  /** Whoever asked for the end still gets the answer. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    const late = setTimeout(() => this.#sockets.forEach((socket) => socket.destroy()), ANSWER_TIMEOUT_MS);
    await closed;
    clearTimeout(late);
  }

  #receive(socket: Socket, device: ControlledDevice): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => socket.destroy()); // who asked is gone
    let text = "";
    socket.setEncoding("utf8").on("data", (piece: string) => {
      if (text.endsWith("\n")) return;
      text += piece;
      if (text.length > MAX_LINE_BYTES) socket.destroy();
      else if (text.endsWith("\n")) void answer(text, device).then((reply) => socket.end(`${JSON.stringify(reply)}\n`));
    });
  }
}

/** Never rejects. */
async function answer(line: string, device: ControlledDevice): Promise<ControlReply> {
  try {
    return { success: true, value: await obey(line, device) };
  } catch (error) {
    return { success: false, code: error instanceof LazyError ? error.code : "UNAVAILABLE", message: messageOf(error) };
  }
}

async function obey(line: string, device: ControlledDevice): Promise<unknown> {
  const call = parseJsonObject(Buffer.from(line), "control");
  switch (call["call"]) {
    case "stats":
      return device.stats();
    case "stop":
      return await device.stop(call["force"] === true ? "lazy" : "plain");
    case "snapshot":
      return await device.snapshot(requireString(call, "config", "control"));
    default:
      throw new LazyError("USAGE", `control: call is ${JSON.stringify(call["call"])}, expected stats, stop or snapshot`);
  }
}
