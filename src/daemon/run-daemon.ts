import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { LazyError, messageOf } from "../errors.ts";
import type { ServiceConfig } from "./config/service-config.ts";
import { readServiceConfig } from "./config/config-file.ts";
import { daemonRoutes } from "./daemon-api.ts";
import type { DeviceStats } from "./device-stats.ts";
import { Devices, type DevicesOptions } from "./devices.ts";
import { createJsonServer, type Route } from "./json-server.ts";
import type { Log } from "./log/log.ts";
import { openServiceLogs } from "./log/service-logs.ts";
import { MetricsPage, type Observation } from "./metrics-page.ts";
import { createSnapshotService } from "./snapshot-service.ts";
import { listenOnSocket } from "../export/unix-listener.ts";

export interface DaemonOptions extends Pick<DevicesOptions, "launcher"> {
  /** Of the API. Beside it is a directory for the devices. */
  readonly socketPath: string;
  /** Of the service's configuration; undefined: the defaults count. */
  readonly configPath: string | undefined;
  readonly signal: AbortSignal;
  /** Gets the lines of the log where the configuration names no file. */
  readonly standardError: (line: string) => void;
  /** Called once clients may come. */
  readonly onReady: () => void;
}

/** Where the devices of a daemon are. */
function devicesDirectory(socketPath: string): string {
  return `${socketPath.replace(/\.sock$/, "")}.devices`;
}

/** Serves the API until the signal is aborted. Devices go on without it, and the next daemon on this socket finds them. */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const { configPath, standardError } = options;
  const { config, notices } = await readServiceConfig(configPath);
  const logs = openServiceLogs(configPath === undefined ? undefined : config, "daemon", standardError);
  for (const notice of notices) logs.log("warn", `${configPath}: ${notice}`);
  try {
    await serveDevices(config, logs.log, options);
  } finally {
    logs.close();
  }
}

async function serveDevices(
  config: ServiceConfig,
  log: Log,
  { socketPath, configPath, launcher, signal, onReady }: DaemonOptions,
): Promise<void> {
  mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
  const routes: Route[] = [];
  const api = createJsonServer(routes);
  // Whoever has the socket has the devices: nothing is done before.
  await listenOnSocket(api, socketPath);
  const servers: Server[] = [api];
  let devices: Devices | undefined;
  try {
    devices = Devices.open({ parent: devicesDirectory(socketPath), launcher, log, serviceConfigPath: configPath });
    routes.push(...daemonRoutes(devices));
    servers.push(...(await listenOnPorts(config, devices, log)));
    log("info", `listens on ${socketPath}`);
    onReady();
    if (!signal.aborted) await once(signal, "abort");
  } finally {
    await devices?.close();
    await rm(socketPath, { force: true });
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
  }
}

async function listenOnPorts({ serviceConfig, exporterConfig }: ServiceConfig, devices: Devices, log: Log): Promise<Server[]> {
  const servers: Server[] = [];
  if (serviceConfig.enable) {
    const { hostname: host, port } = new URL(serviceConfig.address);
    servers.push(
      await listenOnPort(createSnapshotService(devices, log), host.replace(/^\[|\]$/g, ""), Number(port || 80), "serviceConfig.address"),
    );
  }
  if (exporterConfig.enable) {
    servers.push(
      await listenOnPort(createExporter(devices, exporterConfig.uriPrefix), undefined, exporterConfig.port, "exporterConfig.port"),
    );
  }
  return servers;
}

async function listenOnPort(server: Server, host: string | undefined, port: number, key: string): Promise<Server> {
  try {
    // Without a host: all addresses that the machine has.
    server.listen(port, host === "localhost" ? "127.0.0.1" : host);
    await once(server, "listening");
    return server;
  } catch (cause) {
    throw new LazyError("UNAVAILABLE", `${key}: cannot listen on ${host ?? "port"} ${port}: ${messageOf(cause)}`, { cause });
  }
}

function createExporter(devices: Devices, path: string): Server {
  const page = new MetricsPage();
  let making: Promise<string> | undefined;
  const make = async (): Promise<string> => {
    const text = page.render(await observe(devices));
    making = undefined;
    return text;
  };
  return createServer((request, response) => {
    request.resume();
    if (URL.parse(request.url ?? "/", "http://localhost")?.pathname !== path) {
      response.writeHead(404).end();
      return;
    }
    // One at a time: older answers must not come after newer ones.
    making ??= make();
    void making.then((text) => response.writeHead(200, { "content-type": "text/plain; version=0.0.4" }).end(text));
  });
}

/** Devices that do not answer are left out, but for id and state. Never rejects. */
async function observe(devices: Devices): Promise<Observation> {
  const all = devices.list();
  const answers = await Promise.allSettled(all.map(async (device) => await device.stats()));
  const states: Record<string, number> = {};
  for (const { state } of all.map((device) => device.report())) states[state] = (states[state] ?? 0) + 1;
  const stats = answers.flatMap((answer): DeviceStats[] => (answer.status === "fulfilled" ? [answer.value] : []));
  const ids = new Set(all.map(({ spec }) => spec.id));
  return { hostname: hostname(), unixMs: Date.now(), ids, devices: stats, states, restarts: devices.restarts };
}
