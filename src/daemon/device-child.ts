import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { z } from "zod";
import { parseImageConfig, type ImageConfig } from "../device/image-config-schema.ts";
import { ERROR_CODES, LazyError } from "../errors.ts";
import { readConfigText, readServiceConfig } from "./config/config-file.ts";
import type { ServiceConfig } from "./config/service-config.ts";
import { devicePlaces, SERVE_DEVICE_COMMAND } from "./device-places.ts";
import type { DeviceSpec } from "./exposure-schema.ts";

const replySchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("ready") }),
  z.strictObject({ kind: z.literal("failed"), code: z.enum(ERROR_CODES), message: z.string() }),
]);

/** The one thing that a device process says to whoever started it, if both live long enough. */
export type DeviceReply = z.infer<typeof replySchema>;

/** The one thing that a device process is told by whoever starts it: all that it serves, read and checked. */
export interface DeviceOrder {
  readonly spec: DeviceSpec;
  readonly service: ServiceConfig;
  readonly image: ImageConfig;
  /** What the writer of the image's should know; the daemon has told the service's. */
  readonly notices: readonly string[];
}

/** Node's, for device processes: a second thread that compiles and collects garbage would have nothing to do, and a heap of its own. */
const NODE_OPTIONS = ["--v8-pool-size=1"] as const;

export type Launcher = readonly [command: string, ...args: string[]];

/**
 * Starts a process that serves a device in its directory, and answers its id when the device can be used. The process is on its own then.
 * Throws what is wrong with the configurations, what the process says went wrong, or `UNAVAILABLE` with the end of its log when it says
 * nothing; it has ended, or will.
 */
export async function startDeviceProcess(spec: DeviceSpec, directory: string, [command, ...args]: Launcher): Promise<number> {
  const order = await readOrder(spec);
  const { log } = devicePlaces(directory);
  const descriptor = openSync(log, "a", 0o600);
  let child: ChildProcess;
  try {
    const stdio: ("ignore" | "ipc" | number)[] = ["ignore", descriptor, descriptor, "ipc"];
    child = spawn(command, [...NODE_OPTIONS, ...args, SERVE_DEVICE_COMMAND, directory], { cwd: "/", detached: true, stdio });
  } finally {
    closeSync(descriptor);
  }
  const answer = replyOf(child);
  child.send(order, () => {}); // one that cannot be told ends, and that is heard of
  const reply = await answer.catch((cause: unknown) => {
    throw crashed(log, cause);
  });
  if (reply.kind === "failed") throw new LazyError(reply.code, reply.message);
  if (child.connected) child.disconnect();
  child.unref();
  if (child.pid === undefined) throw new LazyError("UNAVAILABLE", `${directory}: the process has no id`);
  return child.pid;
}

/** Read here and not by the process: what it takes to check them would stay in its memory as long as the device lives. */
async function readOrder(spec: DeviceSpec): Promise<DeviceOrder> {
  const service = await readServiceConfig(spec.serviceConfigPath);
  const image = parseImageConfig(await readConfigText(spec.configPath), spec.configPath);
  return { spec, service: service.config, image: image.config, notices: image.notices };
}

async function replyOf(child: ChildProcess): Promise<DeviceReply> {
  const reply = Promise.withResolvers<DeviceReply>();
  child.once("error", reply.reject);
  child.once("exit", (code, by) => reply.reject(new Error(`the device process ended ${by ? `by ${by}` : `with status ${code}`}`)));
  child.once("message", (message) => {
    const parsed = replySchema.safeParse(message);
    if (parsed.success) reply.resolve(parsed.data);
    else reply.reject(parsed.error);
  });
  return await reply.promise;
}

function crashed(log: string, cause: unknown): LazyError {
  const said = readFileSync(log, "utf8").trim().slice(-2000);
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LazyError("UNAVAILABLE", `${reason}${said === "" ? "" : `; it said:\n${said}`}`, { cause });
}
