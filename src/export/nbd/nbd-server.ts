import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { LazyError, messageOf } from "../../errors.ts";
import { listenOnSocket } from "../unix-listener.ts";
import { ExportRequests, type NbdCounts } from "./export-requests.ts";
import type { NbdAddress } from "./nbd-address.ts";
import { NbdConnection } from "./nbd-connection.ts";
import type { NbdExport } from "./nbd-export.ts";
import { MAX_NAME_BYTES } from "./protocol.ts";
import type { Request } from "./requests.ts";

/** Each may hold as much memory as the largest request. */
const MAX_CONNECTIONS = 16;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 10_000;
const KEEPALIVE_MS = 60_000;

export interface NbdServerOptions {
  readonly served: NbdExport;
  readonly address: NbdAddress;
  /** Called when a request fails that was not at fault; its client gets an error. */
  readonly onFailure: (error: unknown, request: Request) => void;
  /** Called when a client is cut off because it does not keep to the protocol, or cannot be let in. */
  readonly onMisbehaviour: (error: unknown) => void;
  /** Called when the last of the clients that were there has gone. */
  readonly onLeft?: () => void;
  readonly maxConnections?: number | undefined;
  readonly handshakeTimeoutMs?: number | undefined;
  /** How long requests may take that are under way when the server is closed. */
  readonly stopTimeoutMs?: number | undefined;
}

/** Shows a device to NBD clients. The device stays open when the server closes. */
export class NbdServer {
  /** With the port that was chosen. */
  readonly address: NbdAddress;
  readonly #server: Server;
  readonly #requests: ExportRequests;
  readonly #options: NbdServerOptions;
  readonly #connections = new Map<NbdConnection, Promise<void>>();

  private constructor(server: Server, requests: ExportRequests, options: NbdServerOptions) {
    this.#server = server;
    this.#requests = requests;
    this.#options = options;
    this.address = actualAddress(server, options.address);
    server.on("connection", (socket) => this.#receive(socket));
    server.on("error", options.onMisbehaviour);
  }

  /**
   * A unix socket is for its owner alone; one that nobody listens on any more is replaced.
   * Throws `USAGE` for a name that no client could ask for, `UNAVAILABLE` when the address cannot be had.
   */
  static async listen(options: NbdServerOptions): Promise<NbdServer> {
    const { served, address, maxConnections = MAX_CONNECTIONS } = options;
    const nameBytes = Buffer.byteLength(served.name);
    if (nameBytes > MAX_NAME_BYTES) throw new LazyError("USAGE", `export name of ${nameBytes} bytes, expected at most ${MAX_NAME_BYTES}`);
    const requests = await ExportRequests.open(served);
    const server = createServer({ allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MS });
    server.maxConnections = maxConnections;
    if (address.kind === "unix") await listenOnSocket(server, address.path);
    else await listenOnPort(server, address);
    return new NbdServer(server, requests, options);
  }

  counts(): Readonly<NbdCounts> & { readonly connections: number } {
    return { ...this.#requests.counts, connections: this.#connections.size };
  }

  /** Takes no new clients, finishes what is under way, and disconnects; cuts off what takes too long. */
  async close(): Promise<void> {
    this.#server.close();
    if (this.address.kind === "unix") rmSync(this.address.path, { force: true });
    const connections = [...this.#connections.keys()];
    const ends = Promise.allSettled(connections.map(async (connection) => await connection.stop()));
    const timeout = new AbortController();
    const late = sleep(this.#options.stopTimeoutMs ?? STOP_TIMEOUT_MS, undefined, timeout);
    late.catch(() => {}); // aborted: nobody is late
    await Promise.race([ends, late]).finally(() => timeout.abort());
    for (const connection of connections) connection.cut();
  }

  #receive(socket: Socket): void {
    const { handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS, onFailure, onMisbehaviour } = this.#options;
    const connection = new NbdConnection(socket, { requests: this.#requests, handshakeTimeoutMs, onFailure });
    const end = connection.ended.catch(onMisbehaviour).finally(() => this.#forget(connection));
    this.#connections.set(connection, end);
  }

  #forget(connection: NbdConnection): void {
    this.#connections.delete(connection);
    if (this.#connections.size > 0) return;
    this.#requests.pool.clear();
    this.#options.onLeft?.();
  }
}

async function listenOnPort(server: Server, { host, port }: Extract<NbdAddress, { kind: "tcp" }>): Promise<void> {
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (cause) {
    throw new LazyError("UNAVAILABLE", `cannot listen on ${host}:${port}: ${messageOf(cause)}`, { cause });
  }
}

function actualAddress(server: Server, asked: NbdAddress): NbdAddress {
  const found = server.address();
  return asked.kind === "tcp" && found !== null && typeof found === "object" ? { ...asked, port: found.port } : asked;
}
