import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { z } from "zod";
import { LazyError, messageOf } from "../errors.ts";
import { dismantle } from "../export/filesystem.ts";
import { asideOf } from "./log/bounded-log.ts";
import { deviceIdSchema, deviceSpecSchema, deviceStateSchema, type DeviceSpec, type DeviceState } from "./exposure-schema.ts";

/** The command that a device process runs; its one argument is the device's directory. */
export const SERVE_DEVICE_COMMAND = "serve-device";

const SPEC_NAME = "device.json";
const STATE_NAME = "state.json";
const CONFIG_NAME = "config.json";
const LOG_NAME = "device.log";
const NEW_PREFIX = ".new-";
/** The kernel's limit for the path of a unix socket, without the NUL. */
const MAX_SOCKET_PATH_BYTES = 107;

/** The places of one device below the daemon's directory. What is in there says all that is needed to find it again. */
export interface DevicePlaces {
  readonly directory: string;
  /** Where FUSE is mounted. */
  readonly exportDirectory: string;
  readonly controlSocket: string;
  readonly nbdSocket: string;
  readonly configPath: string;
  readonly log: string;
}

export function devicePlaces(directory: string): DevicePlaces {
  return {
    directory,
    exportDirectory: join(directory, "export"),
    controlSocket: join(directory, "control"),
    nbdSocket: join(directory, "nbd"),
    configPath: join(directory, CONFIG_NAME),
    log: join(directory, LOG_NAME),
  };
}

export interface NewDevice {
  readonly id: string;
  /** A path, or the text that is to be kept in the device's directory. */
  readonly config: { readonly path: string } | { readonly text: string };
  readonly serviceConfigPath: string | undefined;
  readonly expose: DeviceSpec["expose"];
}

/** Makes the directory of a new device, whole or not at all. Throws `USAGE` when the id is taken. */
export function createDeviceDirectory(parent: string, { id, config, serviceConfigPath, expose }: NewDevice): DeviceSpec {
  const directory = join(parent, id);
  const { controlSocket, configPath } = devicePlaces(directory);
  if (Buffer.byteLength(controlSocket) > MAX_SOCKET_PATH_BYTES) {
    throw new LazyError(
      "USAGE",
      `${controlSocket}: longer than ${MAX_SOCKET_PATH_BYTES} bytes, which a socket's path may have; shorten id`,
    );
  }
  const spec = deviceSpecSchema.parse({ id, configPath: "path" in config ? config.path : configPath, serviceConfigPath, expose });
  const fresh = join(parent, `${NEW_PREFIX}${randomBytes(8).toString("hex")}`);
  mkdirSync(fresh, { mode: 0o700 });
  try {
    mkdirSync(join(fresh, basename(devicePlaces(directory).exportDirectory)), { mode: 0o700 });
    if ("text" in config) writeFileSync(join(fresh, CONFIG_NAME), config.text, { mode: 0o600 });
    writeFileSync(join(fresh, SPEC_NAME), JSON.stringify(spec), { mode: 0o600 });
    renameSync(fresh, directory);
  } catch (error) {
    rmSync(fresh, { recursive: true });
    if (codeOf(error) === "ENOTEMPTY" || codeOf(error) === "EEXIST") throw new DuplicateDeviceError(id);
    throw error;
  }
  return spec;
}

/** The id is another device's. */
export class DuplicateDeviceError extends LazyError {
  constructor(id: string) {
    super("USAGE", `duplicated dev id: ${id}`);
    this.name = "DuplicateDeviceError";
  }
}

/** The devices in the daemon's directory; what was left half-made is removed. */
export function listDevices(parent: string): DeviceSpec[] {
  const specs: DeviceSpec[] = [];
  for (const name of readdirSync(parent)) {
    if (name.startsWith(NEW_PREFIX)) rmSync(join(parent, name), { recursive: true });
    else if (deviceIdSchema.safeParse(name).success) {
      const directory = join(parent, name);
      const spec = readJson(join(directory, SPEC_NAME), deviceSpecSchema);
      if (spec !== undefined) specs.push(spec);
      else removeDeviceDirectory(directory);
    }
  }
  return specs;
}

export function readSpec(directory: string): DeviceSpec {
  const spec = readJson(join(directory, SPEC_NAME), deviceSpecSchema);
  if (spec === undefined)
    throw new LazyError("NOT_FOUND", `${join(directory, SPEC_NAME)}: is missing; ${directory} is no device's directory`);
  return spec;
}

/** What a device process has said of itself; undefined before it is ready. */
export function readState(directory: string): DeviceState | undefined {
  return readJson(join(directory, STATE_NAME), deviceStateSchema);
}

/** Seen whole or not at all. */
export function writeState(directory: string, state: DeviceState): void {
  const path = join(directory, STATE_NAME);
  writeFileSync(`${path}.new`, JSON.stringify(state), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/**
 * Undoes what the end of a device process left of mounts, loop devices and sockets; the device's directory stays for another process.
 * Idempotent. `lazy`: whoever still uses the device gets errors.
 */
export async function clearDevice(directory: string, expose: DeviceSpec["expose"], mode: "plain" | "lazy"): Promise<void> {
  const { exportDirectory, controlSocket, nbdSocket } = devicePlaces(directory);
  await dismantle({ directory: expose.kind === "mount" ? expose.directory : "", exportDirectory }, mode);
  for (const path of [controlSocket, nbdSocket, join(directory, STATE_NAME)]) rmSync(path, { force: true });
}

/** Removes a device's directory. Nothing may be mounted in it. */
export function removeDeviceDirectory(directory: string): void {
  // One after the other and by name: whatever else is in there, a file system that is still mounted for example, is not touched.
  const { controlSocket, nbdSocket, configPath, log, exportDirectory } = devicePlaces(directory);
  const files = [
    controlSocket,
    nbdSocket,
    configPath,
    log,
    asideOf(log),
    join(directory, STATE_NAME),
    join(directory, `${STATE_NAME}.new`),
  ];
  for (const path of files) rmSync(path, { force: true });
  removeEmpty(exportDirectory);
  rmSync(join(directory, SPEC_NAME), { force: true });
  removeEmpty(directory);
}

/** Device processes by the directory they serve. */
export function findDeviceProcesses(): Map<string, number> {
  const found = new Map<string, number>();
  for (const name of readdirSync("/proc")) {
    const directory = /^\d+$/.test(name) ? servedDirectory(Number(name)) : undefined;
    if (directory !== undefined) found.set(directory, Number(name));
  }
  return found;
}

/** Whether a process lives and serves the directory; its id may be somebody else's by now. */
export function isServing(pid: number, directory: string): boolean {
  return servedDirectory(pid) === directory;
}

/** A zombie has no command line any more. */
function servedDirectory(pid: number): string | undefined {
  const args = readIfThere(`/proc/${pid}/cmdline`)?.split("\0") ?? [];
  const at = args.indexOf(SERVE_DEVICE_COMMAND);
  return at > 0 ? args[at + 1] : undefined;
}

function readJson<T extends z.ZodType>(path: string, schema: T): z.infer<T> | undefined {
  const text = readIfThere(path);
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new LazyError("CORRUPT", `${path}: ${messageOf(cause)}`, { cause });
  }
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    // Files of a process answer ESRCH when it ends while they are read.
    if (["ENOENT", "ESRCH", "ENOTDIR"].includes(codeOf(error))) return undefined;
    throw error;
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
