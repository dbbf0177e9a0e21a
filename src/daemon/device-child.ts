import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { z } from "zod";
import { LazyError, type ErrorCode } from "../errors.ts";
import { devicePlaces, SERVE_DEVICE_COMMAND } from "./device-directory.ts";

const errorCodes = ["USAGE", "NOT_FOUND", "DENIED", "UNSUPPORTED", "CORRUPT", "UNAVAILABLE"] as const satisfies readonly ErrorCode[];

const replySchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("ready") }),
  z.strictObject({ kind: z.literal("failed"), code: z.enum(errorCodes), message: z.string() }),
]);

/** The one thing that a device process says to whoever started it, if both live long enough. */
export type DeviceReply = z.infer<typeof replySchema>;

export type Launcher = readonly [command: string, ...args: string[]];

/**
 * Starts a process that serves the device of a directory, and answers its id when the device can be used. The process is on its own then.
 * Throws what it says went wrong, or `UNAVAILABLE` with the end of its log when it says nothing; it has ended, or will.
 */
export async function startDeviceProcess(directory: string, [command, ...args]: Launcher): Promise<number> {
  const { log } = devicePlaces(directory);
  const descriptor = openSync(log, "a", 0o600);
  let child: ChildProcess;
  try {
    const stdio: ("ignore" | "ipc" | number)[] = ["ignore", descriptor, descriptor, "ipc"];
    child = spawn(command, [...args, SERVE_DEVICE_COMMAND, directory], { cwd: "/", detached: true, stdio });
  } finally {
    closeSync(descriptor);
  }
  const reply = await replyOf(child).catch((cause: unknown) => {
    throw crashed(log, cause);
  });
  if (reply.kind === "failed") throw new LazyError(reply.code, reply.message);
  if (child.connected) child.disconnect();
  child.unref();
  if (child.pid === undefined) throw new LazyError("UNAVAILABLE", `${directory}: the process has no id`);
  return child.pid;
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
