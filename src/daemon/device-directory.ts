import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { syncPath } from "../bytes/file-directories.ts";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import { devicePlaces, removeDeviceDirectory } from "./device-places.ts";
import { deviceIdSchema, deviceSpecSchema, deviceStateSchema, type DeviceSpec, type DeviceState } from "./exposure-schema.ts";
import { DuplicateDeviceError } from "./opening-result.ts";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";

const NEW_PREFIX = ".new-";
/** What is there already, be it a device or not. */
const TAKEN: ReadonlySet<string> = new Set(["ENOTEMPTY", "EEXIST", "ENOTDIR"]);
const ON_DISK = { mode: 0o600, flush: true } as const;
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

/**
 * Makes the directory of a new device, whole or not at all, also where a power cut comes between. Throws `DuplicateDeviceError` when the
 * id is taken.
 */
export async function createDeviceDirectory(parent: string, { id, config, serviceConfigPath, expose }: NewDevice): Promise<DeviceSpec> {
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
  let made = fresh;
  try {
    mkdirSync(devicePlaces(fresh).exportDirectory, { mode: 0o700 });
    if ("text" in config) writeFileSync(devicePlaces(fresh).configPath, config.text, ON_DISK);
    writeFileSync(devicePlaces(fresh).specPath, JSON.stringify(spec), ON_DISK);
    await syncPath(fresh);
    renameSync(fresh, directory);
    made = directory;
    await syncPath(parent);
  } catch (error) {
    rmSync(made, { recursive: true });
    if (TAKEN.has(codeOf(error))) throw new DuplicateDeviceError(id);
    throw error;
  }
  return spec;
}

/** A device that an earlier daemon has left. */
export interface FoundDevice {
  readonly spec: DeviceSpec;
  /** The process that serves it; undefined when there is none. */
  readonly server: ProcessIdentity | undefined;
}

/**
 * The devices in the daemon's directory; what was left half-made is removed. What cannot be read is no reason to do without the others:
 * `warn` is told, and it stays where it is, with its id taken.
 */
export function findDevices(parent: string, warn: (message: string) => void): FoundDevice[] {
  const found: FoundDevice[] = [];
  for (const name of readdirSync(parent)) {
    const directory = join(parent, name);
    try {
      if (name.startsWith(NEW_PREFIX)) rmSync(directory, { recursive: true });
      else if (deviceIdSchema.safeParse(name).success) found.push(...findDevice(directory, name));
    } catch (error) {
      warn(
        `${directory}: ${messageOf(error)}; it is left as it is, is not served from here, and its id stays taken: put the file right and ` +
          "start the daemon again, or end what serves it, unmount what is mounted in it, and remove it",
      );
    }
  }
  return found;
}

function findDevice(directory: string, id: string): FoundDevice[] {
  const { specPath } = devicePlaces(directory);
  const spec = readJson(specPath, deviceSpecSchema);
  if (spec === undefined) {
    removeDeviceDirectory(directory);
    return [];
  }
  if (spec.id !== id) throw corrupt(`${specPath}: id is ${JSON.stringify(spec.id)}, expected ${JSON.stringify(id)}`);
  const server = readProcess(directory);
  // Whoever supervises it goes by that, and would fail.
  if (server !== undefined) readState(directory);
  return [{ spec, server }];
}

/** What a device process has said of itself; undefined before it is ready. */
export function readState(directory: string): DeviceState | undefined {
  return readJson(devicePlaces(directory).statePath, deviceStateSchema);
}

/** The process that serves the device; undefined when there is none. */
function readProcess(directory: string): ProcessIdentity | undefined {
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
  if (text === "") throw corrupt(`${path}: is empty`);
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    const problems = cause instanceof z.ZodError ? cause.issues.map(({ path: key, message }) => `${key.join(".")}: ${message}`) : [];
    throw corrupt(`${path}: ${problems.join("; ") || messageOf(cause)}`, { cause });
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
