import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { LazyError, messageOf } from "../errors.ts";
import { devicePlaces, removeDeviceDirectory } from "./device-places.ts";
import { deviceIdSchema, deviceSpecSchema, deviceStateSchema, type DeviceSpec, type DeviceState } from "./exposure-schema.ts";
import { DuplicateDeviceError } from "./opening-result.ts";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";

const NEW_PREFIX = ".new-";
const processIdentitySchema = z.object({ pid: z.int().positive(), startTicks: z.int() });
/** The kernel's limit for the path of a unix socket, without the NUL. */
const MAX_SOCKET_PATH_BYTES = 107;

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
    mkdirSync(devicePlaces(fresh).exportDirectory, { mode: 0o700 });
    if ("text" in config) writeFileSync(devicePlaces(fresh).configPath, config.text, { mode: 0o600 });
    writeFileSync(devicePlaces(fresh).specPath, JSON.stringify(spec), { mode: 0o600 });
    renameSync(fresh, directory);
  } catch (error) {
    rmSync(fresh, { recursive: true });
    if (codeOf(error) === "ENOTEMPTY" || codeOf(error) === "EEXIST") throw new DuplicateDeviceError(id);
    throw error;
  }
  return spec;
}

/** The devices in the daemon's directory; what was left half-made is removed. */
export function listDevices(parent: string): DeviceSpec[] {
  const specs: DeviceSpec[] = [];
  for (const name of readdirSync(parent)) {
    if (name.startsWith(NEW_PREFIX)) rmSync(join(parent, name), { recursive: true });
    else if (deviceIdSchema.safeParse(name).success) {
      const directory = join(parent, name);
      const spec = readJson(devicePlaces(directory).specPath, deviceSpecSchema);
      if (spec !== undefined) specs.push(spec);
      else removeDeviceDirectory(directory);
    }
  }
  return specs;
}

/** What a device process has said of itself; undefined before it is ready. */
export function readState(directory: string): DeviceState | undefined {
  return readJson(devicePlaces(directory).statePath, deviceStateSchema);
}

/** The process that serves the device; undefined when there is none. */
export function readProcess(directory: string): ProcessIdentity | undefined {
  const text = readIfThere(devicePlaces(directory).processPath);
  // One that ended with the machine may have left an empty file.
  if (text === undefined || text === "") return undefined;
  const identity = parseJson(text, processIdentitySchema, devicePlaces(directory).processPath);
  return isAlive(identity) ? identity : undefined;
}

function readJson<T extends z.ZodType>(path: string, schema: T): z.infer<T> | undefined {
  const text = readIfThere(path);
  return text === undefined ? undefined : parseJson(text, schema, path);
}

function parseJson<T extends z.ZodType>(text: string, schema: T, path: string): z.infer<T> {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new LazyError("CORRUPT", `${path}: ${messageOf(cause)}`, { cause });
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
